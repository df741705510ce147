"""One run for captions and own answers: each its own groups, advantages, KL and mean, and one update of both."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from racro_pl.policy.config import PolicySettings
from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.reward.unscored import UnscoredError
from racro_pl.rollout import TransformersEngine
from racro_pl.text.captioner_prompt import ANSWER_REQUEST, REQUEST
from racro_pl.training.callbacks.caption_watch import CaptionWatch
from racro_pl.training.callbacks.records import CaptionLog
from racro_pl.training.gradients import normalise_gradients, take_gradients
from racro_pl.training.module import RacroModule
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import Question, RacroError, Rewards
from tests.fakes.engines import FixedEngine
from tests.helpers.tolerance import GRADIENTS, assert_equal
from tests.unit.training.conftest import adapter, by_caption, fit, make_module

WEIGHT, KL, ANSWER_KL = 0.25, 0.05, 0.4


def grade(own: OwnAnswers, question: Question, texts: list[str]) -> Rewards:
    """A random model writes no box: right is what the text's checksum says."""
    right = tuple(float(zlib.crc32(text.encode()) % 2) for text in texts)
    return Rewards(
        total=right, parts={"correct": right, "answered": (1.0,) * len(texts)}, scored=(True,) * len(texts),
        reasons=(None,) * len(texts), answers=((),) * len(texts), extracted=(("x",),) * len(texts),
    )  # fmt: skip


def some_time_out(own: OwnAnswers, question: Question, texts: list[str]) -> Rewards:
    """Every second answer of a group has no score."""
    scored = tuple(row % 2 == 0 for row in range(len(texts)))
    return replace(
        grade(own, question, texts), scored=scored, reasons=tuple(None if known else "timeout" for known in scored)
    )


@pytest.fixture(autouse=True)
def graded(monkeypatch):
    monkeypatch.setattr(OwnAnswers, "grade", grade)


class Gradients(Callback):
    """Moves the adapter away from its start, where a KL term would have no gradient; keeps every update's gradient."""

    def on_train_start(self, trainer, pl_module):
        generator = torch.Generator().manual_seed(5)
        self.seen: list[dict[str, torch.Tensor]] = []
        names = {p: name for name, p in pl_module.captioner.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for parameter, name in names.items():
                if "lora_B" in name:
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(0.03 * drawn)
        trainer.optimizers[0].register_step_pre_hook(
            lambda *_: self.seen.append(
                {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for p, name in names.items()}
            )
        )


def gradients(folder: Path, root: Path, script: Any = by_caption, **objective: Any) -> tuple[list[Any], RacroModule]:
    """Of every update of a step with fixed texts, which moves nothing."""
    settings = {"learning_rate": 1e-30, "weight_decay": 0.0, "max_grad_norm": 1e9, "micro_batch_size": 4}
    module = make_module(folder, script, **(settings | objective))
    module.engine = FixedEngine(group_size=4, max_new_tokens=6)
    for reward in module.rewards.values():
        reward.max_unscored_share = 1.0
    watch = Gradients()
    fit(module, root, callbacks=[watch])
    return watch.seen, module


@pytest.mark.parametrize(("updates", "unscored"), [(2, "captions"), (1, "answers"), (1, "all")])
def test_the_gradient_is_the_weighted_sum_of_both_objectives(folder, tmp_path, monkeypatch, updates, unscored):
    """Against the steps of cro and qa by themselves, on the same texts; the adapter is off its start, so KL counts.

    Without a score are some captions, or some answers, or all captions: each mean is over what its own role has.
    """
    if unscored == "answers":
        monkeypatch.setattr(OwnAnswers, "grade", some_time_out)
    odd = ("figure x ?", "figure xxx ?") if unscored == "captions" else ("figure",) if unscored == "all" else ()

    def script(prompt: str) -> str | None:
        return None if any(text in prompt for text in odd) else by_caption(prompt)

    def run(name: str, **settings: Any) -> list[dict[str, torch.Tensor]]:
        return gradients(folder, tmp_path, script, name=name, updates_per_rollout=updates, **settings)[0]

    joint = run("joint", kl_coefficient=KL, answer_kl_coefficient=ANSWER_KL, answer_weight=WEIGHT)
    captions, answers = run("cro", kl_coefficient=KL), run("qa", kl_coefficient=ANSWER_KL)
    assert len(joint) == updates
    for both, one, other in zip(joint, captions, answers, strict=True):
        for name, gradient in both.items():
            assert_equal(gradient, one[name] + WEIGHT * other[name], GRADIENTS, name)
            assert other[name].abs().max() > 1e-5
            assert bool(one[name].any()) == (unscored != "all")


def test_the_gradient_written_out(folder, tmp_path):
    """mean over caption tokens of (-A + beta k3) + weight * the same of answers, from the policy's own log-probs."""
    (found,), module = gradients(
        folder, tmp_path, name="joint", kl_coefficient=KL, answer_kl_coefficient=ANSWER_KL, answer_weight=WEIGHT
    )
    captioner = module.captioner
    captioner.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for role, weight, beta in (("caption", 1.0, KL), ("answer", WEIGHT, ANSWER_KL)):
        groups = [group for group in module.last_step if group[0].role == role]
        assert len(groups) == 4
        loss, tokens = torch.zeros(()), 0
        for rollout, rewards in groups:
            reward = torch.tensor(rewards.total)
            spread = reward.std()
            advantage = (reward - reward.mean()) / (spread + 1e-6) if spread > 0 else torch.zeros(4)
            inputs = ([rollout.prompt], torch.zeros(4, dtype=torch.long), rollout.token_ids, rollout.mask)
            policy, _ = captioner.logprobs(*inputs)
            distance = captioner.frozen_logprobs(*inputs, reference=True) - policy
            k3 = distance.exp() - distance - 1
            # The derivative of the ratio policy / old at old = policy is that of the log-prob.
            loss = loss + ((-advantage[:, None] * policy + beta * k3) * rollout.mask).sum()
            tokens += int(rollout.mask.sum())
        total = total + weight * loss / tokens
    total.backward()
    for name, parameter in captioner.named_parameters():
        if name in found:
            assert_equal(found[name], parameter.grad, GRADIENTS, name)


def test_sums_with_divisors_and_weights_of_their_own():
    """(2, 4) / 2 + 3 * (5, 0) / 10 = (2.5, 2), of norm sqrt(10.25); a loss that counted nowhere adds nothing."""
    weights = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))]
    weights[0].grad = torch.tensor([5.0])
    first = take_gradients(weights, divisor=10.0, weight=3.0)
    assert [weight.grad for weight in weights] == [None, None]
    nothing = take_gradients(weights, divisor=0.0, weight=7.0)
    for weight, gradient in zip(weights, (2.0, 4.0), strict=True):
        weight.grad = torch.tensor([gradient])
    norm, usable = normalise_gradients(weights, 2.0, 1e9, [first, nothing])
    assert usable
    assert norm == pytest.approx(10.25**0.5)
    assert [float(weight.grad) for weight in weights] == [2.5, 2.0]
    weights[0].grad, weights[1].grad = None, None
    first = take_gradients(weights, divisor=0.0, weight=1.0)
    assert normalise_gradients(weights, 0.0, 1.0, [first]) == (0.0, False)


def test_both_roles_of_a_question_share_its_image_and_nothing_is_mixed_up(folder, tmp_path):
    """Four questions: four images through the tower, eight groups, texts under the prompt of their role."""
    module = make_module(folder, name="joint", answer_kl_coefficient=0.1, updates_per_rollout=2, micro_batch_size=8)
    images: list[int] = []

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            tower = pl_module.captioner.model.get_base_model().model.visual
            tower.register_forward_pre_hook(lambda _, args: images.append(len(args[0])))

    trainer = fit(module, tmp_path, callbacks=[Watch()])
    asked = {"caption": REQUEST, "answer": ANSWER_REQUEST}
    assert [rollout.role for rollout, _ in module.last_step] == ["caption"] * 4 + ["answer"] * 4
    assert [rollout.question.id for rollout, _ in module.last_step] == ["0", "1", "2", "3"] * 2
    for rollout, rewards in module.last_step:
        text = module.encoder.tokenizer.decode(rollout.prompt.input_ids)
        assert [request in text for request in asked.values()] == [role == rollout.role for role in asked]
        assert bool(rewards.answers[0]) == (rollout.role == "caption")  # of answers no reasoner was asked
    captions = [rollout for rollout, _ in module.last_step[:4]]
    assert sum(images) == sum(len(rollout.prompt.pixel_values) for rollout in captions)
    metrics = trainer.callback_metrics
    assert float(metrics["reasoner/captions"]) == 16
    own = [total for _, rewards in module.last_step[4:] for total in rewards.total]
    assert float(metrics["answers/reward/mean"]) == pytest.approx(sum(own) / 16)
    tokens = sum(int(rollout.mask.sum()) for rollout in captions)
    assert float(metrics["caption/tokens"]) == pytest.approx(tokens / 16)
    assert {"answers/kl", "answers/tokens", "answers/loss", "answers/truncated_share"} <= set(metrics)
    assert not any(name.startswith(("answers/seconds", "answers/grad_norm")) for name in metrics)


def test_logs_know_the_role_and_habits_are_those_of_captions(folder, tmp_path):
    module = make_module(folder, name="joint")
    logged = {"callbacks": [CaptionLog(), CaptionWatch(examples=1, probe_every=0)], "logger": False}
    trainer = fit(module, tmp_path, limit_val_batches=1, val_check_interval=1, **logged)
    rows = [json.loads(line) for line in next(tmp_path.rglob("captions.jsonl")).read_text().splitlines()]
    assert [row["role"] for row in rows] == ["caption"] * 16 + ["answer"] * 16
    assert all(row["reasoner_answers"] == [] for row in rows[16:])
    texts = [row["caption"] for row in rows[:16]]
    cut = [texts[start : start + 4] for start in range(0, 16, 4)]
    repeated = sum(text in group[:place] for group in cut for place, text in enumerate(group))
    assert float(trainer.callback_metrics["watch/repeated"]) == repeated / 16
    assert 0 <= float(trainer.callback_metrics["val/own_accuracy"]) <= 1
    assert 0 <= float(trainer.callback_metrics["val/accuracy"]) <= 1


def test_captions_without_scores_stop_the_run_however_many_answers_have_one(folder, tmp_path):
    """All answers are scored, 12 of 16 captions are not: three quarters, not three eighths."""
    module = make_module(folder, lambda prompt: by_caption(prompt) if "figure  ?" in prompt else None, name="joint")
    with pytest.raises(UnscoredError, match="75%|0.75|12 of 16"):
        fit(module, tmp_path)


def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_bit(folder, tmp_path):
    settings = {"name": "joint", "answer_kl_coefficient": 0.02, "updates_per_rollout": 2, "warmup_updates": 3}
    straight, first, second = (make_module(folder, **settings) for _ in range(3))
    fit(straight, tmp_path, steps=3)
    fit(first, tmp_path, steps=2).save_checkpoint(tmp_path / "two.ckpt")
    fit(second, tmp_path, steps=3, ckpt=str(tmp_path / "two.ckpt"))
    texts = [[(rollout.role, rollout.texts) for rollout, _ in module.last_step] for module in (straight, second)]
    assert texts[0] == texts[1]
    assert len({role for role, _ in texts[0]}) == 2
    for name, tensor in adapter(straight).items():
        assert torch.equal(tensor, adapter(second)[name]), name


def test_settings_of_both_roles():
    """Captions have cro's numbers, answers qa's; what is given explicitly wins for the captions alone."""
    settings = ObjectiveSettings(name="joint", kl_coefficient=0.04)
    captions, answers = settings.variant_of("caption"), settings.variant_of("answer")
    assert (captions.kl_coefficient, captions.clip_high) == (0.04, 0.2)
    assert (answers.kl_coefficient, answers.clip_high) == (0.0, 0.25)
    given = ObjectiveSettings(name="joint", answer_kl_coefficient=0.01, answer_clip_high=0.3).variant_of("answer")
    assert (given.kl_coefficient, given.clip_high) == (0.01, 0.3)
    again = ObjectiveSettings(**{**vars(settings), **settings.resolved()})
    assert [again.variant_of(role) for role in again.roles] == [captions, answers]
    assert "answer_clip_high" not in ObjectiveSettings().resolved()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer_weight": 0.0}, "answer_weight is 0.0; expected more than 0"),
        ({"answer_kl_coefficient": -1.0}, "answer_kl_coefficient is -1.0; expected 0 or more"),
        ({"sample_ahead": True}, "sample_ahead and refill_rounds are for groups of one kind"),
        ({"refill_rounds": 1}, "sample_ahead and refill_rounds are for groups of one kind"),
    ],
)
def test_what_joint_cannot_do_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings(name="joint", **changes)


def test_joint_needs_a_reasoner(folder):
    with pytest.raises(RacroError, match="objective joint learns from a reasoner's answers"):
        RacroModule(PolicySettings(str(folder)), TransformersEngine(), objective=ObjectiveSettings(name="joint"))
