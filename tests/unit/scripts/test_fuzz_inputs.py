"""The fuzzer: good inputs are taken, a crash is found and kept, a hang ends, and refusals are no crashes."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from fuzz_parts import seeds as good
from fuzz_parts import targets, worker
from fuzz_parts.mutation import LONGEST, mutate

from racro_pl.types import RacroError
from tests.unit.scripts.conftest import SCRIPTS


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_first_seed_is_a_good_input(name, tmp_path):
    target = targets.TARGETS[name]
    seeds = target.seeds()
    assert worker.try_one(target.feed(tmp_path), seeds[0]) == ("", "")
    draw = random.Random(0)
    assert all(len(mutate(draw.choice(seeds), draw, seeds)) <= LONGEST for _ in range(200))


def test_the_same_seed_makes_the_same_inputs():
    seeds = good.chat_seeds()
    first, second = (
        [mutate(seeds[0], draw, seeds) for _ in range(100)] for draw in (random.Random(1), random.Random(1))
    )
    assert first == second
    assert len(set(first)) > 50


def test_refused_crashed_and_taken_are_told_apart(tmp_path):
    def feed(data: bytes) -> None:
        if data == b"no":
            raise RacroError("no")
        if data == b"bug":
            good.picture("no such format")

    assert worker.try_one(feed, b"yes") == ("", "")
    assert worker.try_one(feed, b"no") == ("refused", "")
    what, message = worker.try_one(feed, b"bug")
    assert what.startswith("KeyError at")
    assert message


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "fuzz_inputs.py"), *arguments], capture_output=True, text=True, timeout=250
    )
    return done.returncode, done.stdout + done.stderr


def test_two_seconds_of_it(tmp_path):
    """Whether these find nothing is the business of the long run; here: both are tried, and the summary says so."""
    code, printed = run("--minutes", "0.03", "--targets", "images", "equality", "--out", str(tmp_path))
    lines = {line.split()[0]: line.split() for line in printed.splitlines()}
    assert code == 0, printed
    assert int(lines["images"][1]) > 0
    assert int(lines["equality"][1]) > 0
    assert printed.splitlines()[-1].endswith("crashes: 0")
    assert not list(tmp_path.iterdir())


CRASHING = """
import sys, os, time
sys.path[:0] = [{scripts!r}, {root!r}]
import fuzz_inputs
from fuzz_parts.targets import TARGETS, Target

def bad(folder):
    calls = []
    def feed(data):
        calls.append(data)
        if len(calls) > 1:  # the first input has to be a good one
            {act}
    return feed

TARGETS.clear()
TARGETS["bad"] = Target("it", lambda: [b"x" * 50], bad)
if __name__ == "__main__":
    sys.exit(fuzz_inputs.main())
"""


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("raise KeyError('it')", "x KeyError at outside: 'it'"),
        ("os._exit(3)", "x process ended with exit code 3"),
        ("time.sleep(60)", "x no end within 3 s"),
        ("bytearray(2**31)", "x MemoryError at outside"),
    ],
)
def test_what_is_raised_what_dies_and_what_hangs_is_a_crash(tmp_path, act, told):
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING.format(scripts=str(SCRIPTS), root=str(SCRIPTS.parent), act=act))
    out = tmp_path / "out"
    arguments = ("--minutes", "0.02", "--limit-s", "3", "--out", str(out))
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=250)
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert told in printed
    assert list(out.glob("bad_*")), printed
