"""A logger for ``trainer.logger`` that Lightning does not have."""

from __future__ import annotations

from argparse import Namespace
from importlib.util import find_spec
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from racro_pl.types import RacroError


class TrackioLogger(Logger):
    """Metrics and tables in trackio, whose dashboard (``trackio show``) runs on this machine.

    Every ``fit`` is a run of its own there, also one that resumes: it starts at the step of its checkpoint. Where
    trackio stores them is its own affair: ``TRACKIO_DIR``, or a server of it (``TRACKIO_SERVER_URL``,
    ``TRACKIO_SPACE_ID``).

    Args:
        project: what trackio shows together.
        name: of the run; None lets trackio name it.

    Raises:
        RacroError: trackio is not installed.
    """

    def __init__(self, project: str = "racro", name: str | None = None) -> None:
        super().__init__()
        if find_spec("trackio") is None:
            raise RacroError("TrackioLogger needs the package trackio; run: pip install 'racro-pl[trackio]'")
        self._project = project
        self._name = name
        self._run: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``trackio.Run``, made on first use."""
        if self._run is None:
            import trackio

            self._run = trackio.init(project=self._project, name=self._name, embed=False)
        return self._run

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The run's name, once there is one."""
        return self._name if self._run is None else self._run.name

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add ``params`` to the run's configuration."""
        self.experiment.config.update(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log numbers, or what trackio has classes for, at a step of Lightning's."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None) -> None:
        """Log rows; a cell may be a ``trackio.Image``."""
        import trackio

        self.log_metrics({key: trackio.Table(columns=columns, data=data)}, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is still queued."""
        if self._run is not None:
            self._run.finish()
