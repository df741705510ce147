"""Two processes learn what one learns from the joined batch: the same gradients, weights and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fakes.ddp_fit import fit_rank
from tests.fakes.models import save_small_model
from tests.helpers.ranks import Ranks
from tests.helpers.tolerance import GRADIENTS, NF4, assert_equal

SAME = (
    "reward/mean", "reward/std", "reward/unscored_share", "reward/zero_variance_share", "caption/tokens",
    "policy/loss", "policy/kl", "policy/entropy", "policy/grad_norm", "reasoner/captions", "reasoner/unscored",
)  # fmt: skip
ANSWERS = ("answers/reward/mean", "answers/loss", "answers/tokens", "answers/entropy")


SLOW = ("nf4", "gspo", "dr_grpo", "fsdp2 full vision silent", "joint broken", "fsdp2 full joint silent")
"""CI runs them apart."""


def fit(ranks: Ranks | None, folder: Path, out: Path, *options: str) -> list[dict]:
    """On these ranks, or alone in this process."""
    if ranks is None:
        fit_rank(0, 1, folder, out, *options)
    else:
        ranks(fit_rank, folder, out, *options)
    return [torch.load(f"{out}.{rank}.pt", weights_only=True) for rank in range(ranks.count if ranks else 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("policy"), "qwen2_5_vl")


@pytest.mark.parametrize(
    "option",
    [
        "", "silent", "fsdp2 broken",
        *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW),
    ],
)  # fmt: skip
def test_two_ranks_learn_what_one_learns(two_ranks, folder, tmp_path, option):
    """Ragged captions, a group without signal, two updates per rollout.

    ``silent``: rank 1 has nothing to learn (with ``joint``: of captions); ``broken``: it has half as many groups. Both
    would leave sharded ranks (``fsdp2``) waiting for passes that the other does not make. The losses differ in what the
    summed gradient is divided by: tokens, captions, or a constant for each.
    """
    options = option.split()
    (one,) = fit(None, folder, tmp_path / "one", *options)
    first, second = fit(two_ranks, folder, tmp_path / "two", *options)
    assert len(one["gradients"]) == len(first["gradients"]) == 2 * 2
    limit = NF4 if option == "nf4" else GRADIENTS
    for mine, other, alone in zip(first["gradients"], second["gradients"], one["gradients"], strict=True):
        assert_equal(mine, alone, limit)
        assert torch.equal(mine, other)
        assert alone.abs().max() > 1e-4
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    for name in (*SAME, *ANSWERS) if "joint" in options else SAME:
        # The first rank's alone is what the loggers write.
        assert first["logged"][name] == pytest.approx(one["logged"][name], rel=limit, abs=1e-6)
    assert first["logged"]["reward/unscored_share"] == (0.5 if "silent" in options else 0.0)


@pytest.mark.slow
def test_a_rank_that_loses_its_rollout_server_stops_all(two_ranks, folder, tmp_path):
    """Nobody waits in a collective for ever, though ranks sample, refill and learn differently often."""
    first, second = fit(two_ranks, folder, tmp_path / "two", "lost")
    assert "another rank has lost its rollout server" in first["error"]
    assert "scripted: the rollout server is gone" in second["error"]
    for each in (first, second):
        assert "Resume with --ckpt_path" in each["error"]
    assert (tmp_path / "checkpoints/stopped-step=2.ckpt").is_file()
    assert len(first["gradients"]) == len(second["gradients"]) == 2 * 2
    for mine, other in zip(first["gradients"], second["gradients"], strict=True):
        assert torch.equal(mine, other)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
