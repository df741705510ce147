"""The whole step on a device that only claims to be one: nothing mixes devices, and the host waits for few things."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch

from racro_pl.experience import reward_free_logprobs, with_advantages
from racro_pl.losses import VARIANTS, divisor, grpo_loss
from racro_pl.policy import decoding
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.decoding import LOOK_EVERY
from racro_pl.policy.sampling import sample_captions
from racro_pl.rollout import TransformersEngine
from racro_pl.types import Rewards, Rollout
from tests.fakes.pretend_device import OnDevice, PretendDevice, move, pretend_device
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build

pytestmark = [
    pytest.mark.filterwarnings("ignore:captions are sampled without a CUDA graph"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="pretends a card where there is none"),
]
G, T = 3, 6


@pytest.fixture
def device(monkeypatch):
    with pretend_device(monkeypatch.setattr) as mode:
        yield mode


def captioner_there(folder, **changes) -> Captioner:
    with torch.utils._python_dispatch._disable_current_modes():
        captioner = build(folder, **({"gradient_checkpointing": False} | changes))
    move(captioner)
    assert captioner.device.type == "cuda"
    return captioner


def sample(captioner: Captioner, group: int = G, tokens: int = T) -> list[Rollout]:
    questions = [(item, captioner.encode(item)) for item in QUESTIONS]
    return list(TransformersEngine(group, tokens, 1.0, 4).sample(captioner, questions, 0))


def rewards(group: int = G) -> Rewards:
    total = tuple(float(i % 2) for i in range(group))
    return Rewards(total, {}, (True,) * (group - 1) + (False,), (None,) * group, ((),) * group, ((),) * group)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_step_stays_on_its_device(folders, family, device):
    captioner = captioner_there(folders[family], gradient_checkpointing=True)
    trained = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    with captioner.cache_image_features():
        rollouts = sample(captioner)
        assert all(isinstance(rollout.token_ids, OnDevice) for rollout in rollouts)
        batch = reward_free_logprobs(captioner, rollouts, old=True, reference=True, temperature=1.0, weigh=True)
        experience = with_advantages(batch, [rewards() for _ in rollouts])
        logprobs, entropy = captioner.logprobs(
            experience.prompts, experience.group_index, experience.token_ids, experience.mask
        )
        for variant in VARIANTS.values():
            out = grpo_loss(
                logprobs, experience.old_logprobs, experience.ref_logprobs, experience.advantages, experience.mask,
                variant=replace(variant, kl_coefficient=0.1),
            )  # fmt: skip
            assert divisor(variant, experience.mask, T) > 0
            captioner.zero_grad()
            out.loss.backward(retain_graph=True)
            assert all(isinstance(p.grad, OnDevice) and p.grad.isfinite().all() for p in trained)
        assert torch.isfinite(entropy).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_are_those_of_the_cpu(folders, family, monkeypatch):
    """The branches for CUDA compute what those for the CPU do; greedy, since both draw other numbers."""
    plain = build(folders[family])
    prompts = [plain.encode(item) for item in QUESTIONS]
    expected = plain.generate(prompts, 2, T, None)
    group = torch.arange(4).repeat_interleave(2)
    scored = plain.frozen_logprobs(prompts, group, expected.token_ids, expected.mask, reference=True)
    with pretend_device(monkeypatch.setattr):
        captioner = captioner_there(folders[family])
        found = captioner.generate(prompts, 2, T, None)
        again = captioner.frozen_logprobs(prompts, group, expected.token_ids, expected.mask, reference=True)
        assert torch.equal(found.token_ids.cpu(), expected.token_ids)
        torch.testing.assert_close(again.cpu(), scored, atol=1e-3, rtol=0)


def test_devices_that_mix_are_an_error(folders, device):
    captioner = captioner_there(folders["qwen2_5_vl"])
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert isinstance(there, OnDevice)
    for mixed in (
        lambda: here + there,
        lambda: there.index_add(0, torch.tensor([0]), here[:1]),
        lambda: here[there > 0],
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert (there + 1.0 + torch.tensor(2.0)).sum().item() == 12  # numbers without dimensions may come from the CPU
    assert there[torch.tensor([True, False, True])].shape == (2,)
    captioner.banned = captioner.banned.cpu()  # a buffer that was forgotten
    with pytest.raises(RuntimeError, match="same device"):
        sample(captioner)


def waits_for_sampling(device: PretendDevice, captioner: Captioner, tokens: int) -> int:
    with device.waits() as counted:
        sample(captioner, tokens=tokens)
        return counted.total()


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_waits_once_in_many_tokens(folders, family, device):
    captioner = captioner_there(folders[family])
    captioner.eos_ids = frozenset({-1})  # no caption ends
    with captioner.cache_image_features():
        sample(captioner, tokens=1)  # the tower has its own
        few, many = (waits_for_sampling(device, captioner, tokens) for tokens in (2, 2 + LOOK_EVERY))
    assert many - few == 1


def test_that_there_is_no_graph_is_said(folders, device):
    captioner = captioner_there(folders["qwen2_5_vl"])
    with pytest.warns(UserWarning, match="without a CUDA graph, many times slower: CUDA error"):
        sample(captioner)


def test_a_capture_that_fails_leaves_nothing_of_its_token(folders, device, monkeypatch):
    """What it made for all layers of the token was never computed."""
    captioner = captioner_there(folders["qwen2_5_vl"])
    captioner.eos_ids = frozenset({-1})
    prompts = [captioner.encode(item) for item in QUESTIONS]
    expected = captioner.generate(prompts, 2, T, None)
    capturing, real = [], decoding.read_row

    @contextmanager
    def graph(*_, **__):
        capturing.append(True)
        try:
            yield
        finally:
            capturing.clear()

    def row(model, tokens, positions, attention):
        if capturing:
            attention._own_bias(None).held.fill_(float("nan"))
            raise RuntimeError("CUDA error: this cannot be captured")
        return real(model, tokens, positions, attention)

    monkeypatch.setattr(decoding, "read_row", row)
    monkeypatch.setattr(decoding, "_side_stream", lambda place: None)
    for name, stand_in in (
        ("CUDAGraph", object), ("graph", graph), ("device", nullcontext), ("current_stream", lambda place: None)
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    found = captioner.generate(prompts, 2, T, None)
    assert torch.equal(found.token_ids.cpu(), expected.token_ids.cpu())


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_that_leave_wait_once_per_token(folders, family, device, monkeypatch):
    """The loop of recurrent families."""
    captioner = captioner_there(folders[family])
    captioner.eos_ids = frozenset({-1})
    monkeypatch.setattr("racro_pl.policy.paths.sample_captions", partial(sample_captions, static=False))
    with captioner.cache_image_features():
        sample(captioner, tokens=1)
        few, many = (waits_for_sampling(device, captioner, tokens) for tokens in (2, 6))
    assert many - few <= 4


@pytest.mark.parametrize("family", FAMILIES)
def test_log_prob_passes_wait_as_often_for_many_captions_as_for_few(folders, family, device):
    captioner = captioner_there(folders[family])
    captioner.eos_ids = frozenset({-1})
    counts = []
    with captioner.cache_image_features():
        for group in (2, 4):
            rollouts = sample(captioner, group, 2 * group)
            with device.waits() as counted:
                batch = reward_free_logprobs(captioner, rollouts, old=True, reference=True, temperature=1.0)
                experience = with_advantages(batch, [rewards(group) for _ in rollouts])
                logprobs, _ = captioner.logprobs(
                    experience.prompts, experience.group_index, experience.token_ids, experience.mask
                )
                logprobs.sum().backward()
                counts.append((counted.total(), dict(counted)))
    assert counts[0][0] == counts[1][0]
    assert counts[1][0] <= 3 * 14, counts[1][1]  # three passes
