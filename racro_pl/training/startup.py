"""Checks before the first step: settings that cannot work together, images and gradients that would not arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from racro_pl.policy.config import PolicySettings
from racro_pl.policy.sight import check_sight
from racro_pl.training.strategy import ShardedStrategy
from racro_pl.types import RacroError

if TYPE_CHECKING:
    from racro_pl.training.base import CaptionerModule

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


def probe_sight(module: CaptionerModule) -> None:
    """Refuse a captioner whose captions do not depend on the image: see :func:`racro_pl.policy.sight.check_sight`.

    Raises:
        RacroError: it does not see.
    """
    questions = module.trainer.datamodule.questions["train"]  # type: ignore[attr-defined]
    with_images = (question for question in questions if question.images)
    readable = (encoded for question in with_images for encoded in module.encode_readable([question]))
    first = next(readable, None)
    if first is None:
        module.print("no training question has an image that can be read: whether the captioner sees was not tried")
        return
    difference = check_sight(module.captioner, first[1])
    module.print(
        f"the captioner sees: other pixels change a caption's log-probs by up to {difference:.2g} nats a token"
    )


def probe_gradients(module: CaptionerModule) -> None:
    """One tiny forward and backward over a training question: every trained tensor must receive a gradient.

    For adapters this looks at B (A's gradient is exactly zero while B is). A base layer whose backward is missing,
    or checkpointing that cuts the graph, shows here and not as a flat curve.

    Raises:
        RacroError: names the tensors that got none.
    """
    keep_gradients_local(module.trainer)
    captioner = module.captioner
    questions = module.trainer.datamodule.questions["train"]  # type: ignore[attr-defined]
    # The first may have broken pixels behind a good header: then the next will do.
    readable = (encoded for question in questions for encoded in module.encode_readable([question]))
    first = next(readable, None)
    if first is None:
        raise RacroError(f"none of the {len(questions)} training questions has an image that can be decoded")
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
