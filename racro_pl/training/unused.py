"""Settings that do nothing beside others, or not quite what they say: one line each at the start of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from racro_pl.data.curriculum import Curriculum
from racro_pl.losses import VARIANTS
from racro_pl.reward import Scorer, SeveralReasoners
from racro_pl.training.settings import ObjectiveSettings

if TYPE_CHECKING:
    from racro_pl.training.module import RacroModule

_DEFAULTS = {field.name: field.default for field in fields(ObjectiveSettings)}


def unused_settings(module: RacroModule, questions: int, curriculum: Curriculum | None = None) -> Iterator[str]:
    """A line for each such setting that has another value than its default.

    Args:
        module: its objective, rollout engine and reward.
        questions: per step and rank.
        curriculum: of the training questions.
    """
    objective = module.objective
    yield from _micro_batches(objective.micro_batch_size, module.engine.group_size)
    if objective.updates_per_rollout > questions:
        yield (
            f"objective.updates_per_rollout is {objective.updates_per_rollout}, and a rank has {questions} questions a "
            f"step (data.questions_per_step): {questions} updates are made"
        )
    if objective.updates_per_rollout == 1:
        own = VARIANTS[objective.loss]
        given = [name for name in ("clip_low", "clip_high", "dual_clip") if _differs(objective, name, own)]
        yield from _without_effect(objective, given, "with one update per rollout no ratio leaves 1")
    if objective.variant.kl_coefficient == 0 and objective.kl not in (None, VARIANTS[objective.loss].kl):
        yield from _without_effect(objective, ["kl"], "kl_coefficient is 0")
    if module.engine.in_process and not objective.sample_ahead:
        names = _changed(objective, "importance", "importance_cap")
        yield from _without_effect(objective, names, "the policy samples its captions itself")
    if objective.name != "vpo":
        names = _changed(objective, "caption_penalty", "caption_judge")
        yield from _without_effect(objective, names, f"they are vpo's, and objective.name is {objective.name}")
    elif objective.caption_judge == "reasoner" and isinstance(module.reward, SeveralReasoners):
        yield "objective.caption_judge: reasoner asks the first of model.reward.reasoners alone"
    weighted = curriculum is not None and (curriculum.category_weights or curriculum.solved_weight != 1)
    if objective.refill_rounds and weighted:
        yield "objective.refill_rounds draws further questions evenly: data.curriculum's weights do not hold for them"
    if type(module.reward) is Scorer and module.reward.cache_path is not None and not module.reward.caches:
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


def _differs(objective: ObjectiveSettings, name: str, own: object) -> bool:
    # The saved configuration of a run holds the loss's own numbers, which nobody chose.
    return getattr(objective, name) not in (None, getattr(own, name))
