"""RACRO: teach a vision-language model to write the captions that a text-only reasoner needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from racro_pl.lazy import lazy_names

if TYPE_CHECKING:
    from racro_pl.data.benchmark_datamodule import BenchmarkDataModule
    from racro_pl.data.datamodule import RacroDataModule
    from racro_pl.pipeline import Answer, Pipeline, load_captioner
    from racro_pl.training.module import RacroModule

__version__ = "0.1.0"
__all__ = ["Answer", "BenchmarkDataModule", "Pipeline", "RacroDataModule", "RacroModule", "load_captioner"]

__getattr__ = lazy_names(
    __name__,
    {
        "racro_pl.pipeline": "Answer Pipeline load_captioner",
        "racro_pl.data.benchmark_datamodule": "BenchmarkDataModule",
        "racro_pl.data.datamodule": "RacroDataModule",
        "racro_pl.training.module": "RacroModule",
    },
)
