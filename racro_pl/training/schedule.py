"""The learning rate over a run."""

from __future__ import annotations

from lightning.pytorch import Trainer

from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import RacroError


def rate_share(objective: ObjectiveSettings, updates_done: int, trainer: Trainer) -> float:
    """Share of the peak learning rate that the next update takes: 1 at most, 0 when a linear decay has ended.

    It follows from the settings, the updates and the steps made alone: a schedule object would bring an old one back
    from a checkpoint.

    Args:
        updates_done: optimizer updates of the run so far; the warm-up counts them.
        trainer: its ``global_step`` of all its steps is what a linear decay counts.
    """
    warm_up = min(1.0, (updates_done + 1) / (objective.warmup_updates + 1))
    # The first step's share is known without the number of all steps, for which Lightning would load the data early.
    if objective.learning_rate_schedule == "constant" or not trainer.global_step:
        return warm_up
    return warm_up * (1 - trainer.global_step / trainer.estimated_stepping_batches)


def check_schedule(objective: ObjectiveSettings, trainer: Trainer) -> None:
    """Refuse a decay over steps whose number nobody knows.

    Raises:
        RacroError: the run has no last step.
    """
    endless = trainer.max_steps == -1 and trainer.max_epochs == -1
    if objective.learning_rate_schedule == "linear" and endless:
        raise RacroError(
            "objective.learning_rate_schedule: linear falls to zero at the run's last step, and trainer.max_steps and "
            "max_epochs are both -1; set one of them, or learning_rate_schedule: constant"
        )
