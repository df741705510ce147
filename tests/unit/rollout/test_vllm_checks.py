"""Which distance of log-probs stops a run."""

from contextlib import nullcontext

import pytest

from racro_pl.rollout.vllm.checks import Gap, check_gap
from racro_pl.rollout.vllm.protocol import RolloutError


@pytest.mark.parametrize(
    ("mean", "base_mean", "passes"),
    [
        (0.010, 0.006, True),  # the base is 1.7 times as near: rounding can do that
        (0.010, 0.004, False),  # 2.5 times: the adapter is ignored
        (0.060, 0.200, False),  # above the threshold
        (float("nan"), 0.200, False),
    ],
)
def test_the_gap_may_be_rounding_or_not(mean, base_mean, passes):
    with nullcontext() if passes else pytest.raises(RolloutError, match="canary: "):
        check_gap(Gap(mean, highest=0.1, base_mean=base_mean, tokens=9), threshold=0.05)
