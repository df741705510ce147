"""Families that ``VllmEngine`` cannot sample for are refused with their reason, before a server starts."""

from __future__ import annotations

import pytest

from racro_pl.policy.config import PolicySettings
from racro_pl.policy.families import FAMILIES
from racro_pl.rollout import RolloutError
from racro_pl.rollout.vllm.server import check_family
from tests.helpers.families import BUILDERS

REASONS = {
    "llava_onevision": "takes no LoRA", "gemma3": "one way only", "gemma4": "one way only", "molmo2": "does not know",
    "qwen3_5": "bfloat16", "minicpmv4_6": "bfloat16", "lfm2_vl": "off by nats",
    "qwen3_vl_moe": "was not tried", "qwen3_5_moe": "was not tried", "glm46v": "was not tried",
}  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_is_taken_or_refused_with_the_reason(kind, tmp_path):
    if FAMILIES[kind].transformers is not None:  # older ones have no classes to build it of
        assert REASONS[kind] in str(FAMILIES[kind].vllm)
        return
    BUILDERS[kind](kind)[0].save_pretrained(tmp_path)
    policy = PolicySettings(path=str(tmp_path))
    if kind not in REASONS:
        check_family(policy)
    else:
        with pytest.raises(RolloutError, match=f"of the family {kind}, for which VllmEngine .*{REASONS[kind]}.*Transf"):
            check_family(policy)
