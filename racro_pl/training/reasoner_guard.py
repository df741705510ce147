"""Ends a run whose reasoner answers nothing, or has cost what it may: both would otherwise show at its end only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch.utilities import rank_zero_warn

from racro_pl.reward.reward_function import RewardFunction
from racro_pl.training.distributed import all_reduce
from racro_pl.types import RacroError


class AnswerlessError(RacroError):
    """The reasoner replies, and none of its replies holds an answer."""


class BudgetError(RacroError):
    """The reasoner has cost as much as it may."""


class ReasonerGuard:
    """Watches a run's metrics, which are those of all ranks: so every rank comes to the same conclusion.

    Args:
        scorer: gives the reward function, counts its replies and adds up what they cost.
    """

    def __init__(self, scorer: Callable[[], RewardFunction]) -> None:
        self._scorer = scorer
        self._answerless = 0
        self._before = 0.0
        """Spent up to the checkpoint from which the run resumed."""
        self._not_ours = 0.0
        """Spent by this process before it loaded that checkpoint."""
        self.spent = 0.0
        """Money that the run has cost so far, on all ranks and before it was resumed."""

    def resume(self, spent: float) -> None:
        """Count on from what a checkpoint says."""
        self.spent = self._before = spent
        self._not_ours = self._scorer().spent

    def begin(self) -> None:
        """Refuse to begin a run whose budget is spent.

        Raises:
            BudgetError: it is.
        """
        if (error := self._over_budget()) is not None:
            raise error

    def settle(self) -> None:
        """Add what was spent between steps, by a validation for instance. To be called by all ranks: a collective."""
        self.spent = self._before + float(all_reduce(torch.tensor(self.own, dtype=torch.float64)))

    @property
    def own(self) -> float:
        """Money that this rank has spent since the run began or was resumed."""
        return self._scorer().spent - self._not_ours

    def after_step(self, step: int, metrics: dict[str, float]) -> RacroError | None:
        """Why the run has to stop after a step; None when it need not.

        Args:
            step: its number, for the warning.
            metrics: the step's, reduced over ranks; ``reasoner/spent``, the sum of :attr:`own`, becomes the run's
                total, and leaves where nothing has a price.
        """
        self.spent = self._before + metrics.pop("reasoner/spent", 0.0)
        if "reasoner/cost" in metrics:
            metrics["reasoner/spent"] = self.spent
        return self._no_answers(step, metrics) or self._over_budget()

    def _no_answers(self, step: int, metrics: dict[str, float]) -> RacroError | None:
        replies = metrics.get("reasoner/replies", 0.0)
        if replies == 0:  # nothing was asked, or nothing came: that is for the share of unscored captions to judge
            return None
        if metrics["reasoner/answered"] > 0:
            self._answerless = 0
            return None
        self._answerless += 1
        found = (
            f"none of the reasoner's {replies:.0f} replies held an answer in \\boxed{{}}; the length limit cut "
            f"{metrics['reasoner/truncated']:.0f} of them"
        )
        advice = (
            "captions.jsonl shows what it wrote. Raise its max_tokens if it is cut off, serve a thinking model with "
            "its reasoning parser or switch thinking off, or use a model that follows the instruction"
        )
        patience = self._scorer().max_answerless_steps
        if patience is None or self._answerless < patience:
            rank_zero_warn(f"step {step}: {found}. {advice}")
            return None
        return AnswerlessError(f"in {patience} steps in a row {found}. What to do: {advice}; then resume")

    def _over_budget(self) -> RacroError | None:
        budget = self._scorer().budget
        if budget is None or self.spent < budget:
            return None
        return BudgetError(
            f"the reasoner has cost {self.spent:.6g}, and the budget is {budget:g}: to train further, raise the budget "
            "of model.reward"
        )
