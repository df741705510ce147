"""Benchmarks under Lightning: ``Trainer().test(module, datamodule=BenchmarkDataModule("mathvision=PATH"))``."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from racro_pl.data.benchmarks.loading import BenchmarkSettings, LoadedBenchmark, load_benchmarks, parse_benchmark
from racro_pl.data.sampling import in_order, place_of
from racro_pl.text.printable import printable
from racro_pl.types import RacroError


class BenchmarkDataModule(LightningDataModule):
    """The questions of one or several benchmarks, one loader each. A batch is a list of ``Question``.

    ``Trainer.test`` and ``Trainer.validate`` of a :class:`racro_pl.RacroModule` give each benchmark's headline, its
    interval and its shares without an answer, by the rule ``strict``. Ranks share every benchmark out.

    Args:
        benchmarks: each a name, ``NAME=PATH`` (file, folder or hub id), or ``PATH.jsonl`` for questions of one's own.
        limit: at most so many questions of each, the first; groups (DynaMath's seeds, WeMath's problems) whole.
        batch_size: questions per batch, per rank.

    Raises:
        RacroError: there is no such benchmark, or none is given.

    Examples:
        >>> BenchmarkDataModule("mathvision=test.jsonl", "dynamath", limit=100).entries[0].path
        'test.jsonl'
    """

    def __init__(self, *benchmarks: str | BenchmarkSettings, limit: int | None = None, batch_size: int = 64) -> None:
        super().__init__()
        if not benchmarks or batch_size < 1:
            raise RacroError(f"got {len(benchmarks)} benchmarks and batch_size {batch_size}; expected 1 or more")
        self.entries = [parse_benchmark(entry) for entry in benchmarks]
        self.limit = limit
        self.batch_size = batch_size
        self.benchmarks: list[LoadedBenchmark] = []
        """With their questions, once they are read."""

    def setup(self, stage: str) -> None:
        """Read the questions, before any model is loaded.

        Raises:
            RacroError: a benchmark is not found or empty, or there twice; or the stage is ``fit``.
        """
        if stage == "fit":
            raise RacroError("a benchmark is no training data; train on a RacroDataModule and name it in validation")
        if not self.benchmarks:
            self.benchmarks = load_benchmarks(self.entries, self.limit)
            if stage != "predict":  # `racro-pl test`, which tells it in its own place
                for loaded in self.benchmarks:
                    rank_zero_info(printable(str(loaded)))

    @property
    def validation_sets(self) -> list[LoadedBenchmark | None]:
        """What each loader holds."""
        return [*self.benchmarks]

    def test_dataloader(self) -> list[DataLoader]:
        """In order, nothing left out."""
        place = place_of(self.trainer)
        return [in_order(loaded.questions, self.batch_size, place) for loaded in self.benchmarks]

    val_dataloader = predict_dataloader = test_dataloader
