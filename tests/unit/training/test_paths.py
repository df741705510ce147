"""Which path a fit takes is decided before its first step, said once, and the same after a resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from racro_pl.policy.attention import GroupAttention
from racro_pl.training import startup
from tests.helpers.families import save_small_family
from tests.unit.training.conftest import adapter, assert_same_adapter, fit, fit_pictures, make_module, moved

PLAIN = "the plain path runs, which reads a prompt and its images for every caption: "


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a class that no family describes."""
    return save_small_family(tmp_path_factory.mktemp("stranger"), "vipllava")


def test_a_fit_says_that_the_shared_prefix_path_is_exact(folder, tmp_path, capsys):
    module = make_module(folder)
    fit(module, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("the shared-prefix path is exact: ") == 1
    assert "plain path" not in printed
    assert module.captioner.plain_because is None


def test_an_undescribed_class_is_trained_on_the_plain_path_which_is_said_once(stranger, tmp_path, capsys):
    module = make_module(stranger)
    fit(module, tmp_path, steps=2)
    printed = capsys.readouterr().out
    assert printed.count(PLAIN) == 1
    assert PLAIN + "the model type 'vipllava' is not described in docs/models.md" in printed
    assert "the captioner sees" in printed
    assert moved(module)


def test_a_run_on_the_plain_path_resumes_bit_for_bit(stranger, tmp_path):
    whole = make_module(stranger)
    fit_pictures(whole, tmp_path)
    assert moved(whole)
    resumed = make_module(stranger)
    fit_pictures(resumed, tmp_path, str(tmp_path / "step=1.ckpt"))
    assert_same_adapter(resumed, whole)


def test_a_shared_prefix_path_that_is_wrong_gives_way_to_the_plain_one(folder, tmp_path, monkeypatch, capsys):
    def without_prompt(self, query, key, value, prompt_k, prompt_v, scaling, window):
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)

    monkeypatch.setattr(GroupAttention, "_attend_captions", without_prompt)
    module = make_module(folder)
    fit(module, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count(PLAIN + "log-probs on the shared-prefix path differ from the model's own by ") == 1
    assert moved(module)

    monkeypatch.undo()
    right = make_module(folder)
    fit(right, tmp_path)
    for name, tensor in adapter(right).items():  # the same step: the same captions, and nearly the same gradients
        torch.testing.assert_close(adapter(module)[name], tensor, rtol=0, atol=2e-2)


def test_a_fault_on_one_rank_puts_all_on_the_plain_path(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(startup, "join_ranks", lambda faults: [*faults, "a fault on another rank"])
    module = make_module(folder)
    fit(module, tmp_path)
    assert PLAIN + "a fault on another rank" in capsys.readouterr().out
    assert module.captioner.plain_because == "a fault on another rank"
