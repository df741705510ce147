"""A logger of a user's own, which like many has no folder of this machine; stand-ins for packages of loggers."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lightning.pytorch.loggers import Logger
from PIL.Image import Image


class ListLogger(Logger):
    """Keeps rows in a list of the class, whoever made it."""

    rows: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        return "list"

    @property
    def version(self) -> str:
        return "1"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(metrics | {"step": step})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


@dataclass
class Table:
    columns: list[str]
    data: list[list[Any]]


@dataclass
class Picture:
    picture: Image


@dataclass
class TrackedRun:
    """What ``trackio.init`` returns, as far as it is used."""

    options: dict[str, Any]
    rows: list[tuple[dict[str, Any], int | None]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    finished: bool = False

    @property
    def name(self) -> str:
        return self.options["name"] or "invented"

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.rows.append((metrics, step))

    def finish(self) -> None:
        self.finished = True


def fake_tables(name: str) -> Any:
    """A module in the place of ``wandb`` or ``trackio``; ``runs`` holds what ``init`` made."""
    module: Any = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.Table, module.Image, module.runs = Table, Picture, []

    def init(**options: Any) -> TrackedRun:
        module.runs.append(TrackedRun(options))
        return module.runs[-1]

    module.init = init
    return module


class WandbLogger(ListLogger):
    """Lightning's, as far as ``CaptionGallery`` uses it: told by its name, since it cannot be made without wandb."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[Table, int | None]] = []

    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None) -> None:
        assert key == "captions"
        self.tables.append((Table(columns, data), step))


class MLFlowLogger(ListLogger):
    """The same for MLflow: the client of its ``experiment`` keeps files by name, and writes over them."""

    run_id = "7"

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Any] = {}

    @property
    def experiment(self) -> MLFlowLogger:
        return self

    def log_image(self, run_id: str, image: Image, artifact_file: str) -> None:
        assert run_id == self.run_id
        self.files[artifact_file] = image

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        assert run_id == self.run_id
        self.files[artifact_file] = text
