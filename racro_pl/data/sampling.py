"""In which order questions come, which rank gets which, and how a resumed run continues in mid-epoch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, DistributedSampler

from racro_pl.types import Question


class QuestionSampler(DistributedSampler[int]):
    """This rank's share of the question indices.

    The order of an epoch depends on seed and epoch alone, and rank ``r`` of ``w`` takes every ``w``-th index from
    ``r`` on: the questions of a step are the same however many ranks share it. Shuffled, all shares are equally
    long (ranks must make equally many steps); in order, none is cut and none repeats a question to fill up, so that
    an accuracy counts each question once. Lightning leaves samplers of this base class alone.

    Args:
        size: number of questions.
        seed: seeds the shuffling; None keeps the order.
        rank, ranks: this process, of how many.
        order: gives an epoch's ``size`` indices from the epoch and a generator seeded for it; None for a shuffle.
    """

    def __init__(
        self,
        size: int,
        seed: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        order: Callable[[int, torch.Generator], list[int]] | None = None,
    ) -> None:
        # The base class's own arithmetic is not used: it would pad or cut the shares to equal length.
        self.size = size
        self.shuffle_seed = seed
        self.rank = rank
        self.num_replicas = ranks
        self.epoch = 0
        self.order = order

    def __iter__(self) -> Iterator[int]:
        if self.shuffle_seed is None:
            return iter(range(self.rank, self.size, self.num_replicas))
        generator = torch.Generator()
        # Mixed, so that epoch 1 of seed 1 is not epoch 0 of seed 2.
        generator.manual_seed(self.shuffle_seed * 1_000_003 + self.epoch)
        if self.order is not None:
            order = self.order(self.epoch, generator)
        else:
            order = torch.randperm(self.size, generator=generator).tolist()
        return iter(order[self.rank :: self.num_replicas][: len(self)])

    def __len__(self) -> int:
        if self.shuffle_seed is not None:
            return self.size // self.num_replicas
        return len(range(self.rank, self.size, self.num_replicas))


def extra_indices(size: int, seed: int, step: int, rank: int) -> list[int]:
    """All question indices, in the order in which a rank takes further ones in a step.

    It follows from the arguments alone: a resumed run draws what the uninterrupted one would have. Ranks have orders
    of their own, and may now and then take the same question.
    """
    order = list(range(size))
    random.Random(f"{seed} {step} {rank}").shuffle(order)
    return order


class ResumableLoader(DataLoader[Question]):
    """A data loader whose position in the epoch goes into Lightning's checkpoints and comes back from them.

    Positions count batches, so they hold for another number of ranks too. Only for loaders without workers: those
    read ahead, and the count would too.
    """

    _done = 0
    """Batches of this epoch that were handed out."""
    _skip = 0
    """Batches that were handed out before the run was interrupted."""
    _interrupted: int | None = None
    """The epoch they are of; None where a checkpoint does not tell."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # An epoch may end before its last batch (trainer.limit_train_batches): what follows is the next one's first.
        goes_on = self._interrupted in (None, self._epoch)
        skip, self._skip, self._done = self._skip if goes_on else 0, 0, 0
        # A skipped batch costs nothing: questions are references.
        for batch in super().__iter__():
            self._done += 1
            if self._done > skip:
                yield batch

    @property
    def _epoch(self) -> int | None:
        return getattr(self.sampler, "epoch", None)

    def state_dict(self) -> dict[str, int | None]:
        """The position, and the epoch that it is in."""
        return {"batches_done": self._done, "epoch": self._epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after this position; a finished epoch is the start of the next."""
        self._skip = state["batches_done"] % len(self)
        self._interrupted = state.get("epoch")


# Questions are small: workers would cost more than they save. A generator of the loader's own keeps it from drawing
# on the global random stream, which sampling and exact resume depend on.
PLAIN: dict[str, Any] = {"num_workers": 0, "collate_fn": list}


def in_order(questions: Sequence[Any], batch_size: int, place: tuple[int, int]) -> DataLoader:
    """Batches of this rank's share of all questions, in order; none is left out or repeated.

    ``place`` is this rank, and how many there are. A rank for which there is no question has one batch without any:
    Lightning refuses a loader without batches, or leaves the loop on that rank alone, and the others wait for it.
    """
    filled = [*questions, *[None] * (place[1] - len(questions))]
    sampler = QuestionSampler(len(filled), None, *place)
    options = PLAIN | {"collate_fn": _without_fillers, "generator": torch.Generator()}
    # By name: Lightning's prediction makes the loader again, and would give it a second batch_size.
    return DataLoader(filled, batch_size=batch_size, sampler=sampler, **options)  # type: ignore[arg-type]


def _without_fillers(batch: Sequence[Any]) -> list[Any]:
    return [question for question in batch if question is not None]


def place_of(trainer: Trainer | None) -> tuple[int, int]:
    """This process's rank among those that share the data, and their number."""
    kwargs = trainer.distributed_sampler_kwargs if trainer is not None else None
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)
