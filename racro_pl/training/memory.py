"""The memory ledger of a configuration, and what to change when it does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from racro_pl.data.datamodule import RacroDataModule
from racro_pl.data.readers.base import MAX_IMAGES
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.memory.formulas import Work
from racro_pl.policy.memory.ledger import GIB, Ledger, memory_ledger, planning_config
from racro_pl.policy.memory.towers import tower_of
from racro_pl.rollout import TransformersEngine
from racro_pl.training.module import RacroModule

FEWEST_CAPTION_TOKENS = 64
FEWEST_IMAGE_TOKENS = 64
"""Advice to shorten stops here: captions and images below tell a reasoner little."""


@dataclass(frozen=True)
class Plan:
    """What a run holds in memory: a model, how it is trained, and the most that is done at one time."""

    config: Any
    policy: PolicySettings
    work: Work

    @cached_property
    def ledger(self) -> Ledger:
        """The plan's ledger."""
        return memory_ledger(self.config, self.policy, self.work)

    def lines(self) -> list[str]:
        """The ledger as text, below a line that says of what."""
        work = self.work
        return [
            f"memory of the worst step in GiB: prompts of {work.prompt_tokens} tokens ({work.image_tokens} of images), "
            f"captions of {work.caption_tokens}, {work.groups * work.group_size} captions per micro-batch",
            *self.ledger.lines(),
        ]


def plan_of(module: RacroModule, data: RacroDataModule, ranks: int = 1) -> Plan:
    """The worst case that a configuration allows: the longest prompt it lets through, all of it images where it can be.

    Raises:
        RacroError: the captioner's config cannot be loaded, or is of a family that is not supported.
    """
    config = planning_config(module.policy_settings.path)
    tower = tower_of(config)
    prompt = min(data.max_prompt_tokens, config.get_text_config().max_position_embeddings)
    pixels_per_token = tower.patch_pixels * tower.patches_per_token
    images = min(prompt, MAX_IMAGES * (module.policy_settings.max_pixels // pixels_per_token))
    return with_prompt(module, config, data.questions_per_step // ranks, prompt, images)


def with_prompt(module: RacroModule, config: Any, questions: int, prompt_tokens: int, image_tokens: int) -> Plan:
    """The plan of a module whose prompts are this long.

    Args:
        questions: per step, on this rank.
        prompt_tokens: of the longest prompt.
        image_tokens: how many of them stand for images.
    """
    engine = module.engine
    work = Work(
        prompt_tokens=prompt_tokens,
        image_tokens=image_tokens,
        caption_tokens=engine.max_new_tokens,
        group_size=engine.group_size,
        groups=min(questions, max(1, module.objective.micro_batch_size // engine.group_size)),
        questions=questions,
        sampled_together=min(questions, engine.questions_per_batch) if isinstance(engine, TransformersEngine) else 0,
        losses=len(module.objective.roles),
    )
    return Plan(config, module.policy_settings, work)


def advise(plan: Plan, limit: int) -> list[str]:
    """Settings that bring a plan's peak to ``limit`` bytes, those that cost least first, each with what it leads to.

    Every setting that is enough by itself; when none is, settings to change together until it fits.
    """
    enough = [line for line, changed in _changes(plan) if changed.ledger.peak <= limit]
    if enough:
        return enough
    together: list[str] = []
    while plan.ledger.peak > limit:
        # The least costly change that helps at all: another may have made the next one possible, or useless.
        step = next(((line, to) for line, to in _changes(plan) if to.ledger.peak < plan.ledger.peak), None)
        if step is None:
            return [*together, f"no setting brings it below {limit / GIB:.1f} GiB: use a smaller captioner"]
        line, plan = step
        together.append(line if not together else f"and {line}")
    return together


def _changes(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Every change that is left to make, as a line and the plan it leads to."""
    policy, work = plan.policy, plan.work

    def change(text: str, policy: PolicySettings = policy, **of_work: int) -> tuple[str, Plan]:
        changed = Plan(plan.config, policy, dataclasses.replace(work, **of_work))
        return f"{text} (peak {changed.ledger.peak / GIB:.1f} GiB)", changed

    if not policy.gradient_checkpointing:
        saving = dataclasses.replace(policy, gradient_checkpointing=True)
        yield change("model.policy.gradient_checkpointing: true", saving)
    if work.sampled_together > 1:
        yield change("model.rollout.init_args.questions_per_batch: 1", sampled_together=1)
    if work.groups > 1:
        yield change(f"model.objective.micro_batch_size: {work.group_size}", groups=1)
    if policy.quantization == "none" and policy.lora is not None:
        yield change("model.policy.quantization: nf4", dataclasses.replace(policy, quantization="nf4"))
    if work.caption_tokens >= 2 * FEWEST_CAPTION_TOKENS:
        half = work.caption_tokens // 2
        yield change(f"model.rollout.init_args.max_new_tokens: {half}", caption_tokens=half)
    if work.image_tokens >= 2 * FEWEST_IMAGE_TOKENS:
        half = work.image_tokens // 2
        tower = tower_of(plan.config)
        pixels = half * tower.patch_pixels * tower.patches_per_token
        yield change(
            f"model.policy.max_pixels: {pixels} and data.max_prompt_tokens: {work.prompt_tokens - half}",
            image_tokens=half,
            prompt_tokens=work.prompt_tokens - half,
        )
    if work.group_size > 2:
        half = max(2, work.group_size // 2)
        yield change(f"model.rollout.init_args.group_size: {half}", group_size=half)
