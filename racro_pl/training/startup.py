"""Checks before the first step: settings that cannot work together or do nothing, images and gradients that vanish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from racro_pl.data.curriculum import Curriculum
from racro_pl.losses import VARIANTS
from racro_pl.policy import packing_probe
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.sight import check_sight
from racro_pl.reward import RewardFunction, Scorer, SeveralReasoners
from racro_pl.rollout import RolloutEngine
from racro_pl.rollout.engine import EncodedQuestion
from racro_pl.training.distributed import join_ranks
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.training.strategy import ShardedStrategy
from racro_pl.types import RacroError

OWN_KNOBS = (
    ("gradient_clip_val", None, "model.objective.max_grad_norm"),
    ("gradient_clip_algorithm", None, "model.objective.max_grad_norm (always by norm)"),
    ("accumulate_grad_batches", 1, "model.objective.micro_batch_size"),
)
"""Trainer arguments that manual optimization ignores, their neutral value, and what to set instead."""


def check_trainer(trainer: Trainer, policy: PolicySettings) -> None:
    """Refuse Trainer settings that would be ignored or would break the policy.

    The command line calls this before Lightning's own checks, which know the problem but not our knobs.

    Raises:
        RacroError: all problems in one message, each with what to set instead.
    """
    problems = [
        f"trainer.{name} has no effect here; set {knob}"
        for name, neutral, knob in OWN_KNOBS
        if getattr(trainer, name) != neutral
    ]
    precision = str(trainer.precision)
    if precision.startswith("16"):
        problems.append(f"trainer.precision {precision!r}: fp16 needs a loss scaler, which is not supported; use bf16")
    if precision.endswith("-true") and precision != "32-true":
        problems.append(
            f"trainer.precision {precision!r} would cast the float32 adapters too; use 32-true with model.policy.dtype"
        )
    plugin = type(trainer.precision_plugin).__name__
    if plugin == "BitsandbytesPrecision":
        problems.append(
            "the BitsandbytesPrecision plugin would quantise the adapters; use model.policy.quantization: nf4"
        )
    if trainer.world_size > 1 and getattr(trainer, "_val_check_time_interval", None) is not None:
        problems.append(
            "trainer.val_check_interval is a time: each rank would validate by its own clock, and wait for the others; "
            "set a number of steps"
        )
    problems += _strategy_problems(trainer.strategy, policy)
    if problems:
        raise RacroError("trainer settings: " + "; ".join(problems))


def _strategy_problems(strategy: Strategy, policy: PolicySettings) -> list[str]:
    name = type(strategy).__name__
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy, ShardedStrategy)):
        # Others would run, and reduce gradients, gather weights or write checkpoints in ways of their own.
        return [
            f"the strategy {name} is not supported; use ddp (every device holds the whole policy) or fsdp2 (its "
            "weights are spread over the devices)"
        ]
    if isinstance(strategy, ShardedStrategy) and policy.quantization != "none":
        return [
            f"4-bit weights cannot be sharded, and policy.quantization is {policy.quantization!r} with the strategy "
            "fsdp2; use the ddp strategy, or quantization: none"
        ]
    return []


def keep_gradients_local(trainer: Trainer) -> None:
    """Stop DDP from reducing gradients in every backward: they are summed and reduced once, by training.gradients.

    To be called before every step, because Lightning switches it on again. Left on, ranks whose numbers of backward
    passes differ (one has nothing to learn from) would wait for each other for ever.
    """
    model = trainer.strategy.model
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = False


def probe_sight(captioner: Captioner, readable: Iterator[EncodedQuestion]) -> None:
    """Refuse a captioner whose captions do not depend on the image: see :func:`racro_pl.policy.sight.check_sight`.

    Raises:
        RacroError: it does not see.
    """
    first = next((prompt for question, prompt in readable if question.images), None)
    if first is None:
        _say("no training question has an image that can be read: whether the captioner sees was not tried")
        return
    difference = check_sight(captioner, first)
    _say(f"the captioner sees: other pixels change a caption's log-probs by up to {difference:.2g} nats a token")


def probe_captioner(captioner: Captioner, readable: Callable[[], Iterator[EncodedQuestion]]) -> None:
    """Before the first step: does the captioner compute what its model does, does it see, can it learn?

    Raises:
        RacroError: see :func:`probe_packing`, :func:`probe_sight` and :func:`probe_gradients`.
    """
    probe_packing(captioner)
    probe_sight(captioner, readable())
    probe_gradients(captioner, readable())


def probe_packing(captioner: Captioner) -> None:
    """Let the plain path run where the shared-prefix path does not compute what the model does; say which one runs.

    See :func:`racro_pl.policy.packing_probe.probe_packing`. One rank's finding counts for all.

    Raises:
        RacroError: the plain path has to run, and the weights are sharded or it is wrong too.
    """
    if captioner.plain_because is None:
        packing = packing_probe.probe_packing(captioner, reference=True)
        fault = next((fault for fault in join_ranks([packing.fault]) if fault is not None), None)
        if fault is None:
            _say(f"the shared-prefix path is exact: {packing.difference:.1g} nats a token from the model's own forward")
            return
        captioner.use_plain_path(fault)
    packing_probe.check_plain(captioner)
    how = "" if packing_probe.takes_batches(captioner) else ", one at a time"
    _say(f"the plain path runs, which reads a prompt and its images for every caption{how}: {captioner.plain_because}")


@rank_zero_only
def _say(text: str) -> None:
    print(text)


def probe_gradients(captioner: Captioner, readable: Iterator[EncodedQuestion]) -> None:
    """One tiny forward and backward over a training question: every trained tensor must receive a gradient.

    For adapters this looks at B (A's gradient is exactly zero while B is). A base layer whose backward is missing,
    or checkpointing that cuts the graph, shows here and not as a flat curve.

    Raises:
        RacroError: names the tensors that got none; or no question can be read.
    """
    first = next(readable, None)
    if first is None:
        raise RacroError("no training question has an image that can be decoded")
    prompt = first[1]
    token_ids = torch.tensor([[sorted(captioner.eos_ids)[0]]])
    logprobs, _ = captioner.logprobs(
        [prompt], torch.tensor([0]), token_ids, torch.ones_like(token_ids, dtype=torch.bool)
    )
    logprobs.sum().backward()
    trained = {name: parameter for name, parameter in captioner.named_parameters() if parameter.requires_grad}
    adapters = [name for name in trained if "lora_" in name]
    watched = [name for name in trained if "lora_B" in name] if adapters else list(trained)
    gradients = {name: trained[name].grad for name in watched}
    # Of a sharded weight this rank's part is enough: adapters, where every tensor counts, are whole.
    missing = [name for name, gradient in gradients.items() if gradient is None or not _local(gradient).any()]
    captioner.zero_grad(set_to_none=True)
    if adapters and (missing or not watched):
        raise RacroError(
            f"{len(missing)} of {len(watched)} adapter tensors get no gradient, e.g. {missing[:2]}: "
            "these layers would never learn"
        )
    if not adapters and len(missing) == len(watched):
        raise RacroError(
            "no trained tensor gets a gradient: check policy.freeze_vision and the model's requires_grad flags"
        )


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


# ---------------------------------------------------------------------- settings without effect

_DEFAULTS = {field.name: field.default for field in fields(ObjectiveSettings)}


def unused_settings(
    objective: ObjectiveSettings,
    engine: RolloutEngine,
    reward: RewardFunction | None,
    questions: int,
    curriculum: Curriculum | None = None,
) -> Iterator[str]:
    """A line for each setting that does nothing beside others, and has another value than its default.

    Args:
        questions: per step and rank.
    """
    yield from _micro_batches(objective.micro_batch_size, engine.group_size)
    if objective.updates_per_rollout > questions:
        yield (
            f"objective.updates_per_rollout is {objective.updates_per_rollout}, and a rank has {questions} questions a "
            f"step (data.questions_per_step): {questions} updates are made"
        )
    if objective.updates_per_rollout == 1:
        own = VARIANTS[objective.loss]
        # The saved configuration of a run holds the loss's own numbers, which no user chose.
        ratios = ("clip_low", "clip_high", "dual_clip")
        given = [name for name in ratios if getattr(objective, name) not in (None, getattr(own, name))]
        of_answers = ObjectiveSettings(name="joint", loss=objective.loss).variant_of("answer")
        if objective.name == "joint" and objective.answer_clip_high not in (None, of_answers.clip_high):
            given.append("answer_clip_high")
        yield from _without_effect(objective, given, "with one update per rollout no ratio leaves 1")
    learns_kl = any(objective.variant_of(role).kl_coefficient > 0 for role in objective.roles)
    if not learns_kl and objective.kl not in (None, VARIANTS[objective.loss].kl):
        yield from _without_effect(objective, ["kl"], "kl_coefficient is 0")
    if engine.placement == "in_process" and not objective.sample_ahead:
        names = _changed(objective, "importance", "importance_cap")
        yield from _without_effect(objective, names, "the policy samples its captions itself")
    if objective.name != "vpo":
        names = _changed(objective, "caption_penalty", "caption_judge")
        yield from _without_effect(objective, names, f"they are vpo's, and objective.name is {objective.name}")
    elif objective.caption_judge == "reasoner" and isinstance(reward, SeveralReasoners):
        yield "objective.caption_judge: reasoner asks the first of model.reward.reasoners alone"
    if objective.name != "joint":
        names = _changed(objective, "answer_weight", "answer_kl_coefficient", "answer_clip_high")
        yield from _without_effect(objective, names, f"they are joint's, and objective.name is {objective.name}")
    weighted = curriculum is not None and (curriculum.category_weights or curriculum.solved_weight != 1)
    if objective.refill_rounds and weighted:
        yield "objective.refill_rounds draws further questions evenly: data.curriculum's weights do not hold for them"
    if type(reward) is Scorer and reward.cache_path is not None and not reward.caches:
        yield "without effect here: reward.cache_path; cache is off, or auto with a reasoner that samples"


def _micro_batches(size: int, group: int) -> Iterator[str]:
    together = max(1, size // group) * group
    if together != size:
        yield (
            f"objective.micro_batch_size is {size}, and a group has {group} captions (rollout.group_size), which stay "
            f"together: {together} captions per forward and backward pass"
        )


def _without_effect(objective: ObjectiveSettings, names: list[str], why: str) -> Iterator[str]:
    if names:
        given = ", ".join(f"objective.{name} {getattr(objective, name)!r}" for name in names)
        yield f"without effect here: {given}; {why}"


def _changed(objective: ObjectiveSettings, *names: str) -> list[str]:
    return [name for name in names if getattr(objective, name) != _DEFAULTS[name]]
