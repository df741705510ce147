import subprocess
import sys
import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racro_pl.reward import grader as grader_module
from racro_pl.reward.grader import Grader
from racro_pl.types import Question
from tests.fakes.vllm import wait_until_gone

HOPELESS = "9^{9^{9^{9}}}"
ENDLESS = rf"\sum_{{k=1}}^{{3}} k^{{{HOPELESS}}}"
# What identity testing does not read, and the worker does.
ALGEBRA = (r"\sum_{k=1}^{4} k", "5+5")
PATIENT_S = 100.0
"""Limit of comparisons that end: a busy machine takes longer than a run allows."""


@pytest.fixture(scope="module")
def grader():
    with Grader(PATIENT_S) as grader:
        yield grader


def question(gold, answer_type="math", choices=()):
    return Question("q", (), "?", gold, answer_type, choices)


@pytest.mark.parametrize(
    "gold", ["17", "A", r"\frac12", "0.5", r"2\sqrt3", r"17^\circ", "Yes", r"\text{A}", "1,234", "12.50", r"2\pi",
             "x+1", "5 cm", "(1, 2)", "None"]
)  # fmt: skip
def test_an_answer_matches_its_own_gold(grader, gold):
    for written in (gold, rf"\boxed{{{gold}}}"):
        assert grader.grade(gold, question(written)) is True
        assert grader.grade(f"${gold}$", question(written)) is True
        assert grader.grade(None, question(written)) is False
        assert grader.grade("", question(written)) is False


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\frac{1}{2}", "0.5"), ("x = 3", "3"), ("A. 3", "A"), ("(A)", r"\text{A}"), (r"\sqrt{12}", r"2\sqrt3"),
        (r"\pi \cdot 2", r"2\pi"), ("1+x", "x+1"), ("(x+1)^2", "x^2+2x+1"),
        (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt{2}}"), (r"(\sqrt{4}, 3)", "(2, 3)"), (r"\{2,1\}", r"\{1,2\}"),
        ("y = 2x + 1", "2x+1"), ("2^{10}", "1024"), (r"x \ge 3", r"x \geq 3"), ("50", r"50\%"), ("5", "5 cm"),
    ],
)  # fmt: skip
def test_equal(grader, answer, gold):
    assert grader.grade(answer, question(gold)) is True


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("18", "17"), ("0.333333", r"\frac13"), ("3.14159", r"\pi"), ("1.41421356", r"\sqrt{2}"), ("(2, 1)", "(1, 2)"),
        ("(1, 2, 3)", "(1, 2)"), ("[1, 2]", "(1, 2)"), ("x", "3"), ("B. 3", "A"), ("No", "Yes"), ("x+2", "x+1"),
        (r"\frac{1}{", r"\frac{1}{2}"), ("3 or 4", "4"), ("I think it is 4", "4"), ("4, I think", "4"),
        ("__import__('os')", "0"), (r"\boxed", "1"),
    ],
)  # fmt: skip
def test_different(grader, answer, gold):
    assert grader.grade(answer, question(gold)) is False


@pytest.mark.parametrize(
    "answer", ["1/0", r"\frac{1}{0}", "2/(1-1)", r"\ln 0", "(-1)!", r"\sum_{k=1}^{\infty} k", r"\lim_{x\to 0} 1/x"]
)  # fmt: skip
def test_what_is_not_finite_equals_no_number(grader, answer):
    for gold in ("0", "5", r"2\sqrt3", r"-\infty"):
        assert grader.grade(answer, question(gold)) is False
    assert grader.decide(r"\sum_{k=1}^{\infty} k", r"\infty") is True
    assert grader.grade("1/0:1/0", question("3:1")) is False


def test_choices_and_texts(grader):
    assert grader.grade("blue", question("B", "choice", ("red", "blue"))) is True
    assert grader.grade("(a)", question("B", "choice", ("red", "blue"))) is False
    assert grader.grade("B. blue", question(r"\boxed{B}", "choice")) is True
    assert grader.grade("Light red.", question("light red", "text")) is True
    assert grader.grade("3", question("3.0", "text")) is False  # words, not numbers


@given(st.one_of(st.integers(), st.fractions(), st.decimals(allow_nan=False, allow_infinity=False, places=4)))
def test_reflexive_on_numbers(grader, number):
    written = [str(number)]
    if isinstance(number, Fraction):
        sign = "-" if number < 0 else ""
        written.append(rf"{sign}\frac{{{abs(number.numerator)}}}{{{number.denominator}}}")
    for answer in written:
        assert grader.grade(answer, question(str(number))) is True


@given(
    st.text(alphabet="0123456789xyabc+-*/^(){}[],.=\\ $%!<>|&_", max_size=25), st.sampled_from(["3", "x+1", "(1,2)"])
)
@settings(max_examples=60)
def test_junk_is_graded_without_an_exception(grader, junk, gold):
    grader.limit_s, normal = 2.0, grader.limit_s
    try:
        assert grader.grade(junk, question(gold)) in (True, False, None)
    finally:
        grader.limit_s = normal


@pytest.mark.parametrize(
    "answer", [HOPELESS, "10^{10^{10}}", "(x+y+z+1)^{9999}", "100000000!", "(" * 200 + "x" + ")" * 200]
)
def test_a_hopeless_comparison_is_bounded_and_never_right(answer):
    with Grader(limit_s=2.0) as grader:
        assert grader.grade(answer, question("x+1")) in (False, None)


class ThreadsOwnLimit(Grader):
    """Each thread sets its own: what ends may take long on a busy machine, what does not need not be waited for."""

    limits = threading.local()

    @property
    def limit_s(self):
        return self.limits.seconds

    @limit_s.setter
    def limit_s(self, seconds):
        self.limits.seconds = seconds


def test_a_time_limit_holds_in_any_thread_and_the_next_comparison_works():
    verdicts = {}
    with ThreadsOwnLimit() as grader:

        def work(name, answer, gold):
            grader.limit_s = PATIENT_S if name == "fine" else 2.0
            verdicts[name] = grader.grade(answer, question(gold))

        jobs = [("hopeless", ENDLESS, "x+1"), ("fine", *ALGEBRA), ("hopeless too", ENDLESS, "y+1")]
        threads = [threading.Thread(target=work, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert verdicts == {"hopeless": None, "fine": True, "hopeless too": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60", 60.0), ("-2.5", -2.5), (r"\frac{119}{6}", 119 / 6), (r"2\pi", 6.283185307179586), ("45^2", 2025.0),
        (r"\sqrt{2}", 1.4142135623730951), ("1,200", 1200.0), (r"50\%", 0.5), ("1:4", 0.25), ("e", 2.718281828459045),
        ("x", None), ("", None), ("3 apples", None), ("x=3", None), (r"\{1,2\}", None), (r"\infty", None),
        (r"\sqrt{-1}", None), ("9" * 400, None), ("}{", None), ("__import__('os')", None), (HOPELESS, None),
        ("1" + "+1" * 300, None),
    ],
)  # fmt: skip
def test_the_value_of_a_text(grader, text, value, monkeypatch):
    if text == HOPELESS:
        monkeypatch.setattr(grader, "limit_s", 2.0)
    assert grader.value(text) == (None if value is None else pytest.approx(value, rel=1e-12))


def test_long_answers_are_not_parsed(monkeypatch):
    grader = Grader()
    monkeypatch.setattr(grader, "decide", lambda *_: pytest.fail("asked the worker"))
    assert grader.grade("x+" * 10_000 + "x", question("x")) is False


def test_the_worker_starts_only_when_needed_and_is_replaced_after_a_crash():
    with Grader(PATIENT_S) as grader:
        grader.grade("17.0", question("17"))
        assert grader._worker is None
        assert grader.grade(*(ALGEBRA[0], question(ALGEBRA[1]))) is True
        grader._worker._process.kill()
        assert grader.grade(r"\int_0^1 2x dx", question(r"\frac{2}{2}")) is True  # by the next worker
        assert grader.grade(r"\int_0^1 4x dx", question("1+1")) is True
        process = grader._worker._process
    assert process.poll() is not None


@pytest.fixture
def plain_worker(monkeypatch, tmp_path):
    """Finds everything equal, without the seconds that a computer algebra system takes to be imported."""
    script = tmp_path / "worker.py"
    script.write_text('import sys\nprint("ready", flush=True)\nfor line in sys.stdin:\n    print("true", flush=True)\n')
    monkeypatch.setattr(grader_module, "WORKER", script)


def test_an_expression_that_kills_its_worker_is_not_graded_and_not_asked_for_ever(monkeypatch, plain_worker):
    asked = []
    ask = grader_module.WorkerProcess.ask

    def die(worker, request, limit_s):
        asked.append(request)
        worker._process.kill()
        return ask(worker, request, limit_s)

    with Grader(PATIENT_S) as grader:
        with monkeypatch.context() as changed:
            changed.setattr(grader_module.WorkerProcess, "ask", die)
            for _ in range(grader_module.TRIES + 2):
                assert grader.grade(*(ALGEBRA[0], question(ALGEBRA[1]))) is None
            assert len(asked) == 2 * grader_module.TRIES  # each time by a second worker too
        assert grader.grade(r"\int_0^1 2x dx", question("1+0")) is True


def test_one_busy_moment_does_not_make_a_pair_ungradable(plain_worker):
    class Busy:
        alive = True

        def ask(self, *_):
            self.alive = False
            raise TimeoutError

        def kill(self):
            pass

    with Grader(PATIENT_S) as grader:
        grader._worker = Busy()
        assert grader.grade(ALGEBRA[0], question(ALGEBRA[1])) is None
        assert grader.grade(ALGEBRA[0], question(ALGEBRA[1])) is True
        grader._worker.kill()
        grader._worker = Busy()
        assert grader.value(r"\int_0^1 2x dx") is None
        assert grader.value(r"\int_0^1 2x dx") is True


def test_an_interrupted_comparison_leaves_no_answer_for_the_next_one(monkeypatch, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        'import json, sys\nprint("ready", flush=True)\n'
        "for line in sys.stdin:\n    print(json.dumps(json.loads(line)[1]), flush=True)\n"
    )
    monkeypatch.setattr(grader_module, "WORKER", script)

    def interrupt(*_):
        raise KeyboardInterrupt

    with Grader(PATIENT_S) as grader:
        assert grader.value(r"\a") == r"\a"
        with monkeypatch.context() as changed:
            changed.setattr(grader._worker, "_next", interrupt)
            with pytest.raises(KeyboardInterrupt):
                grader.value(r"\b")
        assert [grader.value(text) for text in (r"\c", r"\d", r"\b")] == [r"\c", r"\d", r"\b"]


def test_the_worker_dies_with_its_parent():
    code = (
        "import os\nfrom racro_pl.reward.grader import Grader\nfrom racro_pl.types import Question\n"
        "grader = Grader()\nassert grader.decide('x+1', '1+x')\n"
        "print(grader._worker._process.pid, flush=True)\nos._exit(1)"  # no clean-up runs
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    wait_until_gone([int(done.stdout)])
