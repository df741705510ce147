"""Features from the cache are those of the tower, bit for bit, and never more than the bound."""

from __future__ import annotations

import pytest
import torch

from racro_pl.policy.config import PolicySettings
from racro_pl.policy.vision import ImageCache, ImageFeatures
from racro_pl.types import ImageRef
from tests.helpers.device import device
from tests.helpers.tolerance import LOGPROBS, assert_equal
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build, picture, question
from tests.unit.policy.test_shared_prefix import GROUP, captions


def features(tokens: int) -> ImageFeatures:
    return ImageFeatures((torch.randn(tokens, 8),), ((torch.randn(tokens, 8),),))


def tower_calls(captioner) -> list[int]:
    """Patches of every pass through the tower from now on."""
    calls: list[int] = []
    tower = captioner.model.get_submodule("base_model.model.model.visual")
    tower.register_forward_pre_hook(
        lambda _, args, named: calls.append(len((args or [named["hidden_states"]])[0])), with_kwargs=True
    )
    return calls


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cached_equals_fresh_bit_by_bit_whatever_it_is_seen_with(folders, family, dtype):
    """A resumed run starts with an empty cache: what it sees anew must be what the other run remembered."""
    tokens, mask = captions()
    warm, fresh = (build(folders[family], dtype=dtype, image_cache_mib=64) for _ in range(2))
    calls = tower_calls(warm)
    for order in ([0, 1], [3], [2, 1, 0]):
        with warm.cache_image_features():
            warm.frozen_logprobs(
                [warm.encode(QUESTIONS[row]) for row in order], torch.arange(len(order)), tokens[: len(order)],
                mask[: len(order)], reference=True,
            )  # fmt: skip
    assert len(calls) == 3  # three questions have images
    found, _ = warm.logprobs([warm.encode(item) for item in QUESTIONS], GROUP, tokens, mask)
    assert len(calls) == 3
    expected, _ = fresh.logprobs([fresh.encode(item) for item in QUESTIONS], GROUP, tokens, mask)
    assert torch.equal(found, expected)
    assert torch.equal(
        warm.generate([warm.encode(QUESTIONS[1])], 2, 6, None).token_ids,
        fresh.generate([fresh.encode(QUESTIONS[1])], 2, 6, None).token_ids,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_changes_nothing_but_the_order_of_sums(folders, family):
    tokens, mask = captions()
    plain, cached = build(folders[family]), build(folders[family], image_cache_mib=64)
    expected, _ = plain.logprobs([plain.encode(item) for item in QUESTIONS], GROUP, tokens, mask)
    for _ in range(2):
        found, _ = cached.logprobs([cached.encode(item) for item in QUESTIONS], GROUP, tokens, mask)
        assert_equal(found[mask], expected[mask], LOGPROBS)


def test_an_image_is_known_again_in_another_question_and_another_is_not(folders):
    captioner = build(folders["qwen2_5_vl"], image_cache_mib=64)
    calls = tower_calls(captioner)
    tokens, mask = captions()
    for asked in (
        question("a", "what ?", picture(60, 60, 1)),
        question("b", "something else ?", picture(60, 60, 1)),
        question("c", "what ?", picture(60, 60, 2)),
    ):
        captioner.frozen_logprobs([captioner.encode(asked)], GROUP[1:2], tokens[1:2], mask[1:2], reference=True)
    assert len(calls) == 2
    metrics = captioner.drain_metrics()
    assert metrics["cache_hit_share"] == pytest.approx(1 / 3)
    assert 0 < metrics["cache_mib"] < 0.1
    assert captioner.drain_metrics()["cache_hit_share"] == 0.0


def test_the_bound_holds_and_what_was_asked_for_longest_ago_leaves():
    size = features(4).bytes
    assert size == 2 * 4 * 8 * 4
    cache = ImageCache(3 * size)
    names = [(ImageRef(data=bytes([index])),) for index in range(5)]
    for name in names[:3]:
        cache.put(name, features(4))
    assert cache.bytes == 3 * size
    assert cache.get(names[0], device()) is not None
    cache.put(names[3], features(8))  # takes the room of two: the second and the third leave
    assert cache.bytes == 3 * size
    assert [cache.get(name, device()) is not None for name in names] == [True, False, False, True, False]
    cache.put(names[4], features(16))  # more than all room there is: kept out, and nobody leaves
    assert cache.bytes == 3 * size
    assert cache.get(names[3], device()) is not None


def test_what_is_kept_is_a_copy(folders):
    """A slice of a batch's features would hold on to the whole batch."""
    whole = torch.randn(100, 8)
    cache = ImageCache(2**20)
    name = (ImageRef(data=b"x"),)
    cache.put(name, ImageFeatures((whole[:2],)))
    whole.zero_()
    kept = cache.get(name, device())
    assert kept is not None
    assert kept.pooler_output[0].any()
    assert kept.pooler_output[0].untyped_storage().nbytes() == 2 * 8 * 4


def test_a_tower_that_learns_is_refused():
    with pytest.raises(ValueError, match="image_cache_mib needs freeze_vision"):
        PolicySettings(path="x", lora=None, dtype="float32", freeze_vision=False, image_cache_mib=1)
    with pytest.raises(ValueError, match="image_cache_mib is -1"):
        PolicySettings(path="x", image_cache_mib=-1)
