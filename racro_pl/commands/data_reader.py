"""The data set of a training configuration, for ``racro-pl data check --config``."""

from __future__ import annotations

from typing import Any

import jsonargparse
import yaml

from racro_pl.commands.guard import ConfigParser, guard
from racro_pl.data.benchmarks.base import Benchmark, Found, SplitInfo
from racro_pl.data.readers.base import Reader
from racro_pl.types import RacroError


class ConfiguredData(Benchmark):
    """What a configuration's reader reads, to be looked at as a benchmark is."""

    name = "data"
    title = "data.reader"
    splits = {split: SplitInfo(0) for split in ("train", "validation", "test")}
    in_average = False

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """As :meth:`Benchmark.read`; there is no path, and images must be there in any case."""
        if split is not None and split not in self.splits:
            raise RacroError(f"data.reader has the splits {', '.join(self.splits)}; got {split!r}")
        wanted: Any = split or "train"
        result = self.reader.read(wanted)
        return Found(result.questions, result.dropped, result.named, wanted)


def configured_data(config: str, arguments: list[str]) -> ConfiguredData:
    """The reader that a configuration file names under ``data.reader``.

    Args:
        arguments: of the command line, where ``--allow-imports`` may stand.

    Raises:
        RacroError: the file cannot be read, names no reader, or names a class that is not allowed.
    """
    guard(arguments)
    try:
        with open(config, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise RacroError(f"{config} is no YAML file: {str(error)[:300]}") from error
    except FileNotFoundError as error:
        raise RacroError(f"{config} is not there") from error
    data = content.get("data") if isinstance(content, dict) else None
    reader = data.get("reader") if isinstance(data, dict) else None
    if reader is None:
        raise RacroError(f"{config} has no data.reader")
    parser = ConfigParser(prog="racro-pl data check", exit_on_error=False)
    parser.add_argument("--reader", type=Reader)
    try:
        return ConfiguredData(parser.instantiate_classes(parser.parse_object({"reader": reader})).reader)
    except (jsonargparse.ArgumentError, ValueError, TypeError) as error:
        raise RacroError(f"{config}: data.reader: {str(error)[:500]}") from error
