"""What the objective's switches stand for."""

from __future__ import annotations

from dataclasses import asdict
from math import inf

import pytest

from racro_pl.losses import VARIANTS
from racro_pl.training.settings import ObjectiveSettings


@pytest.mark.parametrize("loss", VARIANTS)
def test_a_loss_brings_its_own_numbers(loss):
    assert ObjectiveSettings(loss=loss).variant == VARIANTS[loss]


def test_what_is_given_wins_also_when_it_is_zero():
    variant = ObjectiveSettings(loss="gspo", clip_high=0.0, kl_coefficient=0.0, dual_clip=4.0, kl="k2").variant
    assert (variant.clip_low, variant.clip_high) == (3e-4, 0.0)
    assert (variant.kl_coefficient, variant.dual_clip, variant.kl) == (0.0, 4.0, "k2")


def test_settings_that_were_resolved_resolve_to_themselves():
    settings = ObjectiveSettings(loss="dapo")
    again = ObjectiveSettings(**{**asdict(settings), **settings.resolved()})
    assert again.variant == settings.variant
    assert again.variant.dual_clip == inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_low": 1.5}, "clip_low is 1.5; expected between 0 and 1"),
        ({"clip_high": -1.0, "dual_clip": 1.0}, "clip_high is -1.0; expected 0 or more; dual_clip is 1.0; expected"),
        ({"kl_coefficient": -0.1}, "kl_coefficient is -0.1; expected 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings(**changes)
