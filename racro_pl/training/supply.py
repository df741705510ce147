"""Which groups a step learns from: those of its own questions, refilled where wanted, or those of the step before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from racro_pl.data.sampling import extra_indices
from racro_pl.rollout import RolloutError
from racro_pl.training.forwarding import Forwarding
from racro_pl.training.metrics import StepMeter
from racro_pl.training.refill import replace_flat
from racro_pl.training.stream import PendingGroup
from racro_pl.types import Question, Rewards, Rollout

if TYPE_CHECKING:
    from racro_pl.training.module import RacroModule


@dataclass
class Supply:
    """A step's groups."""

    count: int = 0
    """How many are expected; fewer come when the rollout server is lost."""
    groups: Iterator[PendingGroup] = field(default_factory=lambda: iter(()))
    """In the order of the questions. From an engine elsewhere they are still on their way."""
    aside: list[PendingGroup] = field(default_factory=list)
    """Sampled, and not learnt from."""


class CaptionSupply:
    """Has captions sampled and sends each group to the reasoner at once.

    A rollout server that is lost ends the groups, not the step: the other ranks are in it too, and wait in its
    collectives. ``lost`` then says what happened.

    Args:
        module: whose captioner, engine, scorer and objective are used.
    """

    def __init__(self, module: RacroModule) -> None:
        self._module = module
        self._meter = StepMeter()
        self._ahead = Supply()
        self._forwarding: Forwarding | None = None
        self._reasoner_lock = threading.Lock()
        self.lost: RolloutError | None = None

    def reasoner_figures(self) -> dict[str, float]:
        """Counts of the reasoner's side since the last call. Captions sent ahead count when they are sent."""
        with self._reasoner_lock:
            return self._module.scorer.drain_stats()

    def close(self) -> None:
        """Send nothing any more to the reasoner; what was begun for the next step is dropped."""
        if self._forwarding is not None:
            self._forwarding.stop()
        self._forwarding, self._ahead = None, Supply()

    def take(self, questions: Sequence[Question], meter: StepMeter) -> Supply:
        """What to learn from in the step of these questions."""
        self._meter = meter
        if self._module.objective.sample_ahead:
            # The captions of the step before, all of them, before new weights are pushed over those they come from.
            self.settle()
            due, self._ahead = self._ahead, self._begin(questions)
            return due
        supply = self._begin(questions)
        return self._refill(questions, supply) if self._module.objective.refill_rounds else supply

    def settle(self) -> None:
        """Wait for captions that were begun for the next step: before anybody else uses the engine."""
        self._ahead.groups = iter(list(self._ahead.groups))
        if self._module.engine.elsewhere:
            # One server for all ranks: the first one's next push unloads the weights that the others still sample from.
            self._module.trainer.strategy.barrier("captions of all ranks")

    def _begin(self, questions: Sequence[Question]) -> Supply:
        module = self._module
        with self._meter.phase("sample"):
            encoded = module.encode_readable(questions)
        self._meter.add(dropped=len(questions) - len(encoded))
        rollouts: Iterator[Rollout] = iter(())
        try:
            with self._meter.phase("sample"):
                rollouts = module.engine.sample(module.captioner, encoded, module.updates_done)
        except RolloutError as error:
            self.lost = error
        if module.engine.elsewhere and module.objective.sample_ahead:
            return Supply(len(encoded), self._forward(rollouts))
        groups = self._send(rollouts)
        if not module.engine.elsewhere:
            # Whatever else there is to compute, the reasoner gets its captions first.
            groups = iter(list(groups))
        return Supply(len(encoded), groups)

    def _send(self, rollouts: Iterator[Rollout]) -> Iterator[PendingGroup]:
        module = self._module
        while True:
            waited = module.engine.waiting_seconds
            rollout = None
            try:
                with self._meter.phase("sample"):
                    rollout = next(rollouts, None)
            except RolloutError as error:
                self.lost = error
            self._meter.idle(module.engine.waiting_seconds - waited)
            if rollout is None:
                return
            yield rollout, module.scorer.submit(rollout.question, rollout.texts, module.step_seed)

    def _forward(self, rollouts: Iterator[Rollout]) -> Iterator[PendingGroup]:
        """Groups that reach the reasoner while the trainer learns: it has this whole step for them."""
        scorer, seed = self._module.scorer, self._module.step_seed
        forwarding = Forwarding(
            rollouts, lambda rollout: scorer.submit(rollout.question, rollout.texts, seed), self._reasoner_lock
        )
        self._forwarding = forwarding

        def received() -> Iterator[PendingGroup]:
            began = time.perf_counter()
            with self._meter.phase("sample"):
                groups, error = forwarding.groups()
            self._meter.idle(time.perf_counter() - began)
            if isinstance(error, RolloutError):
                self.lost = error
            elif error is not None:
                raise error
            yield from groups

        return received()

    def _refill(self, questions: Sequence[Question], supply: Supply) -> Supply:
        module, groups = self._module, list(supply.groups)
        data, trainer = module.trainer.datamodule, module.trainer  # type: ignore[attr-defined]
        order = extra_indices(len(data.questions["train"]), data.seed, trainer.global_step, trainer.global_rank)
        taken = {question.id for question in questions}
        extra = (data.questions["train"][index] for index in order)
        further = (question for question in extra if question.id not in taken)

        def draw(count: int) -> Iterator[PendingGroup]:
            drawn = list(islice(further, count))
            self._meter.add(refilled=len(drawn))
            return self._begin(drawn).groups

        def result(group: PendingGroup) -> Rewards:
            with self._meter.phase("reason"):
                return group[1].result()

        kept, aside = replace_flat(groups, module.objective.refill_rounds, result, draw)
        self._meter.add(replaced=sum(group is not before for group, before in zip(kept, groups, strict=True)))
        return Supply(supply.count, iter(kept), aside)
