"""Two ranks, and the reasoner of one of them hangs: the other rank is kept no longer than the deadline says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fakes.ddp_fit import OUTAGE_DEADLINE_S
from tests.fakes.models import save_small_model
from tests.helpers.tolerance import GRADIENTS, assert_equal
from tests.integration.test_ddp import fit

pytestmark = pytest.mark.slow
SLACK_S = 100.0
"""For everything but the reasoner, on a busy machine."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("policy"), "qwen2_5_vl")


def test_a_hanging_reasoner_costs_its_rank_the_captions_and_the_others_a_deadline(two_ranks, folder, tmp_path):
    """Learnt is what one process would learn from the captions that have a score."""
    (alone,) = fit(None, folder, tmp_path / "one", "silent")
    ranks = fit(two_ranks, folder, tmp_path / "two", "outage")
    for rank in ranks:
        assert rank["longest_step"] < OUTAGE_DEADLINE_S + SLACK_S
        assert len(rank["gradients"]) == 2 * 2
        for mine, expected in zip(rank["gradients"], alone["gradients"], strict=True):
            assert_equal(mine, expected, GRADIENTS)
            assert expected.abs().max() > 1e-4
    assert ranks[0]["logged"]["reward/unscored_share"] == 0.5
    assert ranks[0]["logged"]["reasoner/unscored/timeout"] == 16


def test_above_the_limit_both_ranks_stop_together_with_one_checkpoint(two_ranks, folder, tmp_path):
    """Half of all captions is too much here, though one rank has scored all of its own and the other none."""
    ranks = fit(two_ranks, folder, tmp_path / "two", "stop")
    saved = tmp_path / "checkpoints/stopped-step=1.ckpt"
    for rank in ranks:
        assert rank["error"].startswith("16 of 32 captions have no score, more than the allowed share of 0.4")
        assert "16x timeout. For example: timeout: no complete answer within" in rank["error"]
        assert str(saved) in rank["error"]
        assert rank["longest_step"] < OUTAGE_DEADLINE_S + SLACK_S
    assert [path.name for path in saved.parent.glob("*.ckpt")] == [saved.name]
    checkpoint = torch.load(saved, weights_only=True)
    assert checkpoint["global_step"] == 1
    # What was learnt from the scored half before the stop is in it.
    for name, weight in ranks[0]["weights"].items():
        assert torch.equal(checkpoint["state_dict"][name], weight)
        assert torch.equal(ranks[1]["weights"][name], weight)
