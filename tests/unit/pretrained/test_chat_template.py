"""Chat templates render as in transformers, and end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from racro_pl.figure_world.models import EMBEDDED
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_encoder
from racro_pl.pretrained import sandbox
from racro_pl.pretrained.chat_template import ChatTemplate, chat_template_of, switch_thinking, without_system
from racro_pl.pretrained.sandbox import RefusalError, SandboxError, run_apart
from racro_pl.reward import InProcessReasoner
from racro_pl.reward.reasoner import ReasonerError
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.types import RacroError
from tests.fakes.chat_templates import QWEN2_5_VL, QWEN3, QWEN3_VL, R1_DISTILL, use_template

PARTS = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Größe?\n <b> 😀 {{ 1 }}"}]},
]
TEXTS = [*reasoner_messages("How many?", "Two."), {"role": "assistant", "content": "<think>x</think>y"}]
OTHER = (
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- continue -%}{%- endif -%}"
    "{% generation %}{{ m | tojson }}{% endgeneration %}{%- endfor -%}{{ eos_token }}{{ tools is none }}"
    "  {% if add_generation_prompt %}\n  go\n  {% endif %}\n"
)
HANGS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
NEVER_ENDING = [HANGS, "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
                "{{ 3 ** (10 ** 9) }}"]  # fmt: skip


@pytest.fixture
def impatient(monkeypatch):
    """A second instead of five; a test that waits for a limit to pass should not wait longer."""
    monkeypatch.setattr(sandbox, "LIMIT_S", 1.0)


@pytest.mark.parametrize(
    ("template", "messages"),
    [(QWEN2_5_VL, PARTS), (QWEN3_VL, PARTS), (QWEN3, TEXTS), (R1_DISTILL, TEXTS), (OTHER, TEXTS)]
    + [((EMBEDDED[name] / "chat_template.jinja").read_text(), TEXTS[:2]) for name in EMBEDDED],
)
def test_a_template_renders_as_transformers_renders_it(template, messages):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    rendered = ChatTemplate(template, "m", tokens).render(messages)
    [expected], _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **tokens)
    assert rendered == expected


def test_thinking_is_switched_where_the_template_has_a_switch():
    template = ChatTemplate(QWEN3, "m", {"bos_token": "<s>"})
    off, on = (switch_thinking(template, way).render(PARTS) for way in (False, True))
    assert off == template.render(PARTS) + "<think>\n\n</think>\n\n"
    assert on == template.render(PARTS)
    with pytest.raises(RacroError, match="m: policy.thinking is false, but its chat template has no enable_thinking"):
        switch_thinking(ChatTemplate(QWEN3_VL, "m"), False)


@pytest.mark.parametrize("template", NEVER_ENDING)
def test_a_template_that_does_not_end_is_ended_and_the_next_one_renders(impatient, template):
    with pytest.raises(SandboxError, match=r"m: its chat template (did not end within 1 s|ended the process)"):
        ChatTemplate(template, "m").render(TEXTS)
    assert ChatTemplate("{{ 1 + 1 }}", "m").render(TEXTS) == "2"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ 'a' * 10 ** 12 }}", "MemoryError"),
        ("{{ 'a' * 99999999 }}", "characters of a chat"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "failed"),
    ],
)
def test_what_a_template_must_not_do_is_an_error_that_says_what(monkeypatch, template, message):
    # All of these end by themselves; the one that makes 100 MB of source takes its seconds on a busy machine.
    monkeypatch.setattr(sandbox, "LIMIT_S", 120.0)
    with pytest.raises(RefusalError, match=message):
        ChatTemplate(template, "m").render(TEXTS)


def test_a_worker_that_is_killed_is_replaced():
    assert run_apart(["match", "a+", ["a", "ab", "aa"]], "m") == ["a", "aa"]
    assert sandbox._worker is not None
    os.kill(sandbox._worker._process.pid, signal.SIGKILL)
    sandbox._worker._process.wait()
    with pytest.raises(SandboxError, match="ended the process"):
        run_apart(["match", "a", []], "m")
    assert run_apart(["match", "a", ["a"]], "m") == ["a"]


def test_an_interrupted_request_leaves_no_result_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_apart(["match", "a", ["a"]], "m") == ["a"]
    interrupted = sandbox._worker
    assert interrupted is not None

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(interrupted, "_next", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_apart(["match", "b", ["b"]], "m")
    assert run_apart(["match", "c", ["c"]], "m") == ["c"]
    started = sandbox._worker
    assert run_apart(["match", "d", ["d"]], "m") == ["d"]
    assert sandbox._worker is started is not interrupted  # one new worker, and no more


def test_threads_get_their_own_answers():
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        found[index] = [ChatTemplate(f"{index}-{{{{ {n} }}}}", "m").render([]) for n in range(50)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: [f"{index}-{n}" for n in range(50)] for index in range(4)}


def test_a_captioner_whose_template_does_not_end_is_refused_at_once(impatient, spoil):
    folder = spoil("captioner")
    use_template(folder, HANGS)
    with pytest.raises(RacroError, match=r"policy\.path .*: its chat template did not end within 1 s"):
        load_encoder(PolicySettings(path=str(folder)))


def test_a_captioner_whose_template_drops_texts_is_refused(spoil):
    folder = spoil("captioner")
    use_template(folder, "{{ messages[-1]['content'][-1]['text'] }}")
    with pytest.raises(RacroError, match="its chat template leaves out"):
        load_encoder(PolicySettings(path=str(folder)))


def test_a_reasoner_whose_template_does_not_end_is_refused_at_check(impatient, spoil):
    folder = spoil("reasoner-b")
    use_template(folder, HANGS)
    with pytest.raises(ReasonerError, match="did not end within 1 s"):
        InProcessReasoner(str(folder)).check()


@pytest.mark.parametrize(
    "start",
    [
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
        "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}",
    ],
)
def test_without_a_system_role_the_system_text_begins_the_users_turn(spoil, caplog, start):
    folder = spoil("reasoner-b")
    use_template(folder, start + (folder / "chat_template.jinja").read_text())
    reasoner = InProcessReasoner(str(folder), temperature=0.0, max_new_tokens=4)
    reasoner.check()
    assert "has no system role; the system text begins the user's turn" in caplog.text
    [future] = reasoner.submit([reasoner_messages("q", "c")])
    assert future.result().text is not None
    assert len([record for record in caplog.records if "system role" in record.message]) == 1


def test_a_template_that_drops_the_users_text_is_refused(spoil):
    folder = spoil("reasoner-b")
    use_template(folder, "{{ messages[0]['content'][:5] }}")
    with pytest.raises(ReasonerError, match="leaves out"):
        InProcessReasoner(str(folder)).check()


def test_folding_keeps_every_text_and_every_turn():
    folded = without_system(TEXTS)
    assert [message["role"] for message in folded] == ["user", "assistant"]
    assert folded[0]["content"] == f"{TEXTS[0]['content']}\n\n{TEXTS[1]['content']}"
    assert without_system(folded) == folded


class Owner:
    special_tokens_map: dict[str, str] = {}

    def __init__(self, template):
        self.chat_template = template


def test_of_several_templates_the_default_counts_and_none_or_a_giant_is_refused():
    several = Owner({"default": "a", "tool_use": "b"})
    assert chat_template_of(several, several, "m").source == "a"
    for template in (None, "", {"tool_use": "b"}):
        with pytest.raises(RacroError, match="m has no chat template"):
            chat_template_of(Owner(template), Owner(template), "m")
    with pytest.raises(RacroError, match="expected at most"):
        chat_template_of(Owner("a" * 300_000), several, "m")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="no alarm signals on this platform")
def test_a_worker_that_nobody_can_kill_any_more_ends_by_itself():
    """Its parent was killed while a template that never ends was rendered."""
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    worker = subprocess.Popen(
        [sys.executable, "-P", str(sandbox.WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    worker.communicate(json.dumps(["render", endless, [], {}]).encode() + b"\n", timeout=60)
    assert worker.returncode == -signal.SIGALRM
