"""A step's groups: sampled, submitted to the reward at once, and cut into micro-batches in the order of the questions.

Rewards arrive in any order; they are awaited in the order of the questions all the same. Sums of gradients then do not
depend on the network, and a resumed run repeats the uninterrupted one bit for bit. ``docs/performance.md`` has what
that order costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from racro_pl.losses import same_rewards
from racro_pl.reward.reward_function import RewardFunction, RewardFuture
from racro_pl.rollout import RolloutEngine, RolloutError
from racro_pl.training.metrics.step import StepMetrics
from racro_pl.types import Question, Rewards, Role, Rollout

SubmittedGroup = tuple[Rollout, RewardFuture]


@dataclass
class StepGroups:
    """A step's groups."""

    count: int = 0
    """How many are expected; fewer come when the rollout server is lost."""
    groups: Iterator[SubmittedGroup] = field(default_factory=lambda: iter(()))
    """In the order of the questions. Those of a server may still be on their way."""
    excluded: list[SubmittedGroup] = field(default_factory=list)
    """Sampled, and not learnt from."""


@dataclass(frozen=True)
class MicroBatch:
    """Groups that go through the policy together."""

    groups: list[SubmittedGroup]
    update: int
    """Which of the step's updates they belong to."""

    @property
    def role(self) -> Role:
        """What all its texts are."""
        return self.groups[0][0].role


class StepRollouts:
    """Sends each group to the reward as soon as it is sampled.

    A rollout server that is lost ends the groups, not the step: the other ranks are in it too, and wait in its
    collectives. ``lost`` then says what happened.
    """

    def __init__(self, engine: RolloutEngine, rewards: Mapping[Role, RewardFunction]) -> None:
        self._engine = engine
        self._rewards = rewards
        self._ahead = StepGroups()
        self._forwarding: _Forwarding | None = None
        self._reward_lock = threading.Lock()
        self.lost: RolloutError | None = None

    def submit(
        self, count: int, sample: Callable[[], Iterator[Rollout]], seed: int, metrics: StepMetrics, ahead: bool = False
    ) -> StepGroups:
        """Have groups sampled, and submit each of them.

        An engine in this process samples all of them now: the reward gets its captions before anything else is
        computed. A server's come when they are asked for; with ``ahead``, when they arrive.

        Args:
            count: groups that are asked for.
            sample: begins to sample them, in the order of the questions.
            seed: of the reward's random choices in this step.
            metrics: the step's.
            ahead: for the next step, while the policy learns from another's groups.
        """
        rollouts: Iterator[Rollout] = iter(())
        try:
            with metrics.phase("sample"):
                rollouts = sample()
        except RolloutError as error:
            self.lost = error

        def submit_one(rollout: Rollout) -> RewardFuture:
            return self._rewards[rollout.role].submit(rollout.question, rollout.texts, seed)

        if self._engine.placement == "server" and ahead:
            self._forwarding = _Forwarding(rollouts, submit_one, self._reward_lock)
            return StepGroups(count, self._forwarded(self._forwarding, metrics))
        groups = self._submitted(rollouts, submit_one, metrics)
        return StepGroups(count, groups if self._engine.placement == "server" else iter(list(groups)))

    def _submitted(
        self, rollouts: Iterator[Rollout], submit: Callable[[Rollout], RewardFuture], metrics: StepMetrics
    ) -> Iterator[SubmittedGroup]:
        while True:
            waited = self._engine.waiting_seconds
            rollout = None
            try:
                with metrics.phase("sample"):
                    rollout = next(rollouts, None)
            except RolloutError as error:
                self.lost = error
            metrics.idle(self._engine.waiting_seconds - waited)
            if rollout is None:
                return
            yield rollout, submit(rollout)

    def _forwarded(self, forwarding: _Forwarding, metrics: StepMetrics) -> Iterator[SubmittedGroup]:
        began = time.perf_counter()
        with metrics.phase("sample"):
            groups, error = forwarding.groups()
        metrics.idle(time.perf_counter() - began)
        if isinstance(error, RolloutError):
            self.lost = error
        elif error is not None:
            raise error
        yield from groups

    # ------------------------------------------------------------------ one step ahead

    def exchange(self, groups: StepGroups) -> StepGroups:
        """Keep these for the next step; the ones kept before are due."""
        due, self._ahead = self._ahead, groups
        return due

    def drain(self, barrier: Callable[[], None]) -> None:
        """Wait for captions that are being sampled for the next step: before the engine is used otherwise.

        Args:
            barrier: of all ranks. They share one server, and the first one's next push would unload the weights that
                the others still sample from.
        """
        self._ahead.groups = iter(list(self._ahead.groups))
        if self._engine.placement == "server":
            barrier()

    def reward_stats(self) -> dict[str, float]:
        """The first role's reward's counts since the last call. Captions submitted ahead count when submitted."""
        with self._reward_lock:
            first, *_ = [reward.drain_stats() for reward in self._rewards.values()]
        return first

    def close(self) -> None:
        """Submit nothing more; what was begun for the next step is dropped."""
        if self._forwarding is not None:
            self._forwarding.stop()
        self._forwarding, self._ahead = None, StepGroups()


class _Forwarding:
    """Submits each group of a server the moment it arrives, from a thread of its own.

    Args:
        submit: called under ``lock``.
        lock: held while the reward is used otherwise.
    """

    def __init__(
        self, rollouts: Iterator[Rollout], submit: Callable[[Rollout], RewardFuture], lock: threading.Lock
    ) -> None:
        self._rollouts = rollouts
        self._submit = submit
        self._lock = lock
        self._groups: list[SubmittedGroup] = []
        self._error: Exception | None = None
        self._stopped = False
        # A daemon: a run that ends by an exception must not wait for the network.
        self._thread = threading.Thread(target=self._run, name="captions-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for rollout in self._rollouts:
                with self._lock:
                    if self._stopped:
                        return
                    self._groups.append((rollout, self._submit(rollout)))
        except Exception as error:  # raised where the groups are waited for
            self._error = error

    def groups(self) -> tuple[list[SubmittedGroup], Exception | None]:
        """Wait for all of them; and what ended them early, if anything did."""
        self._thread.join()
        return self._groups, self._error

    def stop(self) -> None:
        """Submit nothing more. Does not wait: what still arrives is dropped."""
        with self._lock:
            self._stopped = True


# ---------------------------------------------------------------------- refill


def replace_flat(
    groups: Sequence[SubmittedGroup],
    rounds: int,
    result: Callable[[SubmittedGroup], Rewards],
    draw: Callable[[int], Iterable[SubmittedGroup]],
) -> tuple[list[SubmittedGroup], list[SubmittedGroup]]:
    """Dynamic sampling: put groups with signal in the place of groups without.

    As in DAPO (Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025, section 3.2), but
    bounded, and what has no signal after the last round stays. Off by default: the reference run does not do it.

    What it changes: a group whose captions all earned the same has advantage 0; it adds tokens to the mean of the
    step's loss, and its KL term, and nothing else. Replaced, the mean is over groups that say something: the gradient
    is larger, and questions come with a probability that grows with their chance to divide the captions, so that easy
    and hopeless ones weigh less than in the data. The share of right captions among those *learnt from* says nothing
    about progress; ``reward/mean`` therefore counts all captions that were sampled.

    Args:
        rounds: how often to draw, each time as many groups as still have no signal.
        result: waits for a group's rewards.
        draw: samples that many groups of further questions; fewer may come.

    Returns:
        As many groups as came in, in their places; and those that are not learnt from.
    """
    kept, excluded = list(groups), []
    for _ in range(rounds):
        flat = [place for place, group in enumerate(kept) if is_flat(result(group))]
        if not flat:
            break
        places = iter(flat)
        for group in list(draw(len(flat))):
            if not is_flat(result(group)) and (place := next(places, None)) is not None:
                kept[place], group = group, kept[place]
            excluded.append(group)
    return kept, excluded


def is_flat(rewards: Rewards) -> bool:
    """Whether all scored captions earned the same. False when none has a score: then more questions would not help."""
    scores = [total for total, scored in zip(rewards.total, rewards.scored, strict=True) if scored]
    return bool(scores) and same_rewards(scores)


# ---------------------------------------------------------------------- micro-batches


def micro_batches(
    groups: Iterator[SubmittedGroup], count: int, updates: int, size: int, roles: int = 1
) -> Iterator[MicroBatch]:
    """Cut a step's groups, while they come, into one part per update and role, and these into micro-batches.

    Args:
        groups: in the order of the questions; with several roles update by update, and in each role by role.
        count: how many are expected, the same number in each role. Fewer may come; the last parts then have fewer, or
            none.
        updates: in the step.
        size: most groups in a micro-batch.
        roles: how many there are.
    """
    for update, length in enumerate(part_lengths(count // roles, updates)):
        for _ in range(roles):
            for start in range(0, length, size):
                batch = list(islice(groups, min(size, length - start)))
                if batch:
                    yield MicroBatch(batch, update)


def part_lengths(count: int, parts: int) -> list[int]:
    """``parts`` lengths that differ by at most one and add up to ``count``; some may be 0.

    Examples:
        >>> part_lengths(7, 3)
        [3, 2, 2]
    """
    size, extra = divmod(count, parts)
    return [size + (index < extra) for index in range(parts)]


def other_questions(
    questions: Sequence[Question], taken: Sequence[Question], order: Iterable[int]
) -> Iterator[Question]:
    """Further questions for a refill, in an order, without those that the step has."""
    ids = {question.id for question in taken}
    return (questions[index] for index in order if questions[index].id not in ids)
