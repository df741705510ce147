"""The worst step is tried before the first, disturbs nothing, and says what to change when it does not fit."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.memory.formulas import Work
from racro_pl.policy.memory.known_models import known_config
from racro_pl.policy.memory.ledger import GIB
from racro_pl.training.callbacks import preflight
from racro_pl.training.callbacks.preflight import Preflight
from racro_pl.training.memory import Plan, advise
from racro_pl.types import RacroError
from tests.unit.training import conftest
from tests.unit.training.conftest import adapter, fit, make_module, questions


@pytest.fixture(autouse=True)
def longest(monkeypatch):
    # The last of the eight has the widest image and the longest text.
    monkeypatch.setattr(conftest.ListData, "longest", {"train": questions(8)[7]}, raising=False)


def test_the_worst_step_is_tried_and_told(folder, tmp_path, capsys, monkeypatch, on_device):
    seen = []
    real = Captioner.logprobs

    def count(self, prompts, index, token_ids, mask, *rest):
        seen.append((len(prompts), {len(prompt.input_ids) for prompt in prompts}, tuple(token_ids.shape), mask.all()))
        return real(self, prompts, index, token_ids, mask, *rest)

    monkeypatch.setattr(Captioner, "logprobs", count)
    module = make_module(folder, micro_batch_size=8)
    fit(module, tmp_path, callbacks=[Preflight(on_cpu=True)])
    tokens = module.count_prompt_tokens(questions(8)[7])
    # After the gradient probe's one token: two groups of four captions, of the longest length allowed.
    assert seen[1] == (2, {tokens}, (8, 6), True)
    told = capsys.readouterr().out
    assert f"prompts of {tokens} tokens" in told
    assert "captions of 6, 8 captions per micro-batch" in told
    assert "kept activations" in told
    assert ("measured: the whole process" if on_device.type == "cpu" else "measured  ") in told


def test_the_worst_step_has_the_runs_precision(folder, tmp_path, monkeypatch, on_device):
    seen = []
    real = Captioner.logprobs

    def look(self, *given):
        seen.append(torch.is_autocast_enabled(on_device.type))
        return real(self, *given)

    monkeypatch.setattr(Captioner, "logprobs", look)
    fit(make_module(folder), tmp_path, callbacks=[Preflight(on_cpu=True)], precision="bf16-mixed")
    assert all(seen[1:])  # after the gradient probe: the worst step, and the step itself
    assert len(seen) > 2


def test_training_goes_as_without_it(folder, tmp_path):
    alone, tried = make_module(folder), make_module(folder)
    fit(alone, tmp_path, steps=2)
    fit(tried, tmp_path, steps=2, callbacks=[Preflight(on_cpu=True)])
    first, second = adapter(alone), adapter(tried)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_cpu_is_left_alone_by_default(folder, tmp_path, capsys, on_cpu):
    fit(make_module(folder), tmp_path, callbacks=[Preflight()])
    assert "memory of the worst step" not in capsys.readouterr().out


def test_too_much_is_an_error_with_ledger_and_advice(folder, tmp_path, monkeypatch):
    module = make_module(folder, micro_batch_size=8)

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nsecond line")

    def start(*_):
        monkeypatch.setattr(module.captioner, "generate", full)

    preflight = Preflight(on_cpu=True)
    plain = preflight.on_train_start
    monkeypatch.setattr(preflight, "on_train_start", lambda *args: (start(), plain(*args)))
    with pytest.raises(RacroError) as raised:
        fit(module, tmp_path, callbacks=[preflight])
    told = str(raised.value)
    assert "Tried to allocate 2.00 GiB" in told
    assert "second line" not in told
    assert "kept activations" in told
    assert "model.objective.micro_batch_size: 4 (peak" in told


def test_what_does_not_fit_on_another_rank_ends_this_one_too(folder, tmp_path, monkeypatch):
    """Else it would wait for that rank in its first step."""
    monkeypatch.setattr(preflight, "join_ranks", lambda items: [*items, "a step does not fit there"])
    with pytest.raises(RacroError, match="does not fit there"):
        fit(make_module(folder), tmp_path, callbacks=[Preflight(on_cpu=True)])


def test_what_did_not_fit_is_let_go(folder, tmp_path, monkeypatch):
    """An error keeps the frames that it passed, and these what the step had made."""
    held = []

    def full(self, prompts, *_):
        held.append(weakref.ref(prompts[0]))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Captioner, "generate", full)
    with pytest.raises(RacroError) as raised:
        fit(make_module(folder), tmp_path, callbacks=[Preflight(on_cpu=True)])
    gc.collect()
    assert [prompt() for prompt in held] == [None]
    del raised


CONFIG = known_config("Qwen/Qwen2.5-VL-7B-Instruct")
WORK = Work(1300, 1280, 1024, 8, groups=2, questions=32, sampled_together=8)


def plan(work=WORK, **policy):
    return Plan(CONFIG, PolicySettings(path="", **policy), work)


def test_advice_is_what_is_enough_by_itself():
    wide = plan()
    limit = wide.ledger.peak - GIB
    lines = advise(wide, limit)
    assert len(lines) > 1
    assert lines[0].startswith("model.objective.micro_batch_size: 8")
    assert all("and model.o" not in line for line in lines)
    assert not any("gradient_checkpointing" in line for line in lines)  # it is on already


def test_advice_is_joined_when_no_setting_is_enough():
    lines = advise(plan(gradient_checkpointing=False), 12 * GIB)
    assert lines[0].startswith("model.policy.gradient_checkpointing: true")
    assert all(line.startswith("and ") for line in lines[1:])
    assert any("quantization: nf4" in line for line in lines)
    assert float(lines[-1].split("peak ")[1].split()[0]) <= 12


def test_advice_ends_where_nothing_helps():
    assert advise(plan(), GIB)[-1].startswith("no setting brings it below 1.0 GiB")
