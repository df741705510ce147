"""The folder of a run of ``fit`` or ``validate``: the first process chooses it, and a failed start leaves nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from racro_pl.files import write_atomically
from racro_pl.runs import new_version

_RUN_FOLDER = "RACRO_RUN_FOLDER"
_RESUMED = "config-step="
_OF_A_START = ("config.yaml", "hparams.yaml", "metrics.csv")
"""With TensorBoard's event file, what a run has written before its first step."""


@dataclass
class NewFolder:
    """A run folder that this process has made, or is about to, and the folders above that were not there before."""

    path: Path
    parents: list[Path]

    @classmethod
    def planned(cls, run: Path) -> NewFolder:
        """To be asked before anything is made: ``run`` is ``runs/<name>``."""
        return cls(run, [folder for folder in (run, *run.parents) if not folder.exists()])

    def discard(self) -> None:
        """Remove it when a start has failed. A caption, a checkpoint or a server's log in it are worth keeping."""
        if all(map(_is_of_a_start, _sizes(self.path))):
            shutil.rmtree(self.path, ignore_errors=True)
            for folder in self.parents:
                with contextlib.suppress(OSError):
                    folder.rmdir()


@dataclass
class OldFolder:
    """The folder of a run that is resumed, and the files that were in it, with their sizes."""

    path: Path
    before: dict[Path, int]
    configurations: dict[Path, bytes]
    """Those of earlier resumes: another one from the same step writes over its own."""

    @classmethod
    def found(cls, path: Path) -> OldFolder:
        """As it is now."""
        return cls(path, _sizes(path), {file: file.read_bytes() for file in path.glob(f"{_RESUMED}*.yaml")})

    def discard(self) -> None:
        """Remove what a start has added that failed, unless a step has changed the files of the run."""
        now = _sizes(self.path)
        added = now.keys() - self.before.keys()
        same = all(now.get(file) == self.before[file] for file in self.before.keys() - self.configurations.keys())
        if same and all(map(_is_of_a_start, added)):
            for file in added:
                file.unlink(missing_ok=True)
            for file, content in self.configurations.items():
                write_atomically(file, content, owner_only=True)


def _sizes(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def _is_of_a_start(file: Path) -> bool:
    return file.name in _OF_A_START or file.name.startswith(("events.out.tfevents", _RESUMED))


def continued_folder(run: Path, checkpoint: str | None) -> Path | None:
    """The folder of the run that is resumed; None when the run gets a new one.

    That is the folder of the checkpoint when it is one of this run's, and under SLURM that of the job's number, which
    stays the same when the job is requeued.

    Args:
        run: ``runs/<name>``.
        checkpoint: the ``--ckpt_path``.
    """
    if checkpoint is not None:
        path = Path(checkpoint).absolute()
        for folder in (path.parent, path.parent.parent):
            if folder.parent == run.absolute() and folder.is_dir():
                return run / folder.name
    job = SLURMEnvironment.job_id() if SLURMEnvironment.detect() else None
    return None if job is None else run / f"version_{job}"


def shared_version(folder: Path) -> Path:
    """A new version for the first process.

    The processes that Lightning launches from it inherit its choice. Those that another launcher started learn it
    from the first one when they are connected, and write nothing before: for them the name is a placeholder.
    """
    if not is_first_process():
        return Path(os.environ.get(_RUN_FOLDER, folder / "of-the-first-process"))
    chosen = new_version(folder)
    os.environ[_RUN_FOLDER] = str(chosen)
    return chosen


def is_first_process() -> bool:
    """Whether this is global rank 0, as far as torchrun, SLURM or Lightning's own launcher say by now."""
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"
