"""``fit`` and ``validate``: LightningCLI over the typed signatures of the module and the data module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from racro_pl.commands.quiet import quiet_libraries
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.runs import new_version
from racro_pl.text.printable import printable
from racro_pl.training.callbacks.caption_watch import CaptionWatch
from racro_pl.training.callbacks.live_page import LivePage
from racro_pl.training.callbacks.preflight import Preflight
from racro_pl.training.callbacks.records import CaptionLog, SaveResult, SolvedQuestions, StepProgressBar
from racro_pl.training.checkpointing.callback import RunCheckpoint
from racro_pl.training.checkpointing.io import RacroCheckpointIO, checkpoint_step, newest_checkpoint
from racro_pl.training.checkpointing.resume_logs import ContinuedCSVLogger
from racro_pl.training.checkpointing.signals import Stopped
from racro_pl.training.module import RacroModule
from racro_pl.training.startup import check_trainer
from racro_pl.types import RacroError

_RUN_FOLDER = "RACRO_RUN_FOLDER"


class RacroCLI(LightningCLI):
    """Adds the run folder: ``runs/<name>/version_k/`` with config, metrics, captions and checkpoints."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_own_arguments(parser)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
                for name in ("fit", "validate")}  # fmt: skip

    def _parse_ckpt_path(self) -> None:
        """Checkpoints bring no settings of their own: the configuration alone says what runs."""

    def instantiate_classes(self) -> None:
        if (threads := self._get(self.config, "threads")) is not None:
            torch.set_num_threads(threads)
        # Constructors refuse bad values with a ValueError that says what to do; the user needs that line alone.
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            # Of a part that may also be null the parser repeats all values behind the reason, mistyped keys included.
            raise RacroError(str(error).split("\nGiven value", 1)[0]) from error

    def after_instantiate_classes(self) -> None:
        # The saved configuration shows what a null stood for, and which adapter was started from.
        model = self._get(self.config, "model")
        for name, value in self.model.objective.resolved().items():
            model.objective[name] = value
        model.policy.adapter = self.model.policy_settings.adapter
        try:
            check_trainer(self.trainer, self.model.policy_settings)
        except RacroError:
            if self.new_folder is not None:
                self.new_folder.rmdir()
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        self.new_folder: Path | None = None
        if config.get("logger") is None:
            # One folder for both loggers: left alone, each would pick its own next version.
            folder, steps = self._choose_folder()
            place = (folder.parent.parent, folder.parent.name, folder.name)
            kwargs["logger"] = [
                ContinuedCSVLogger(*place, flush_logs_every_n_steps=1), TensorBoardLogger(*place, purge_step=steps)
            ]  # fmt: skip
            if config.get("default_root_dir") is None:
                kwargs["default_root_dir"] = str(folder)
            if (folder / "config.yaml").exists():
                self.save_config_kwargs |= {"config_filename": f"config-step={steps}.yaml", "overwrite": True}
        # A callback of the configuration takes the place of the default one.
        callbacks = config.get("callbacks") or []
        own = {type(callback) for callback in (callbacks if isinstance(callbacks, list) else [callbacks])}
        defaults = self.trainer_defaults["callbacks"]
        self.trainer_defaults["callbacks"] = [callback for callback in defaults if type(callback) not in own]
        plugins = config.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), RacroCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def _choose_folder(self) -> tuple[Path, int | None]:
        """The run's folder, and how many steps its checkpoint has seen when there is one to go on from."""
        run = Path(self._get(self.config_init, "runs")) / self._get(self.config_init, "name")
        asked = self._get(self.config_init, "ckpt_path")
        if self.subcommand != "fit":
            return shared_version(run), None
        folder = continued_folder(run, asked)
        if folder is None:
            folder = shared_version(run)
            self.new_folder = folder if is_first_process() else None
        elif asked is None or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0:
            # A job that SLURM starts again has the command line of the first time.
            asked = newest_checkpoint(folder) or asked
            self.config_init[self.subcommand]["ckpt_path"] = None if asked is None else str(asked)
        return folder, None if asked is None else checkpoint_step(Path(asked))


def add_own_arguments(parser: LightningArgumentParser) -> None:
    """What ``fit`` and ``validate`` take beside Lightning's arguments."""
    parser.add_argument("--name", type=str, default="racro", help="the run's folder is runs/<name>/version_k/")
    parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
    parser.add_argument(
        "--threads", type=PositiveInt | None, default=None,
        help="CPU threads of each process; null leaves it to torch. Small models are fastest on one",
    )  # fmt: skip
    parser.add_lightning_class_args(RunCheckpoint, "checkpoint")


def parts_of(path: str) -> tuple[RacroModule, RacroDataModule]:
    """The module and data module of a configuration of ``fit``, without a trainer or a run folder.

    Raises:
        RacroError: the file is missing, or its ``model`` and ``data`` do not fit their schema.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(RacroModule, "model", subclass_mode=False)
    parser.add_lightning_class_args(RacroDataModule, "data", subclass_mode=False)
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        sections = {name: content[name] for name in ("model", "data")}
        parts = parser.instantiate(parser.parse_object(sections))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, ArgumentError) as error:
        raise RacroError(f"{path} is no configuration of fit: {error}") from error
    return parts.model, parts.data


def continued_folder(run: Path, checkpoint: str | None) -> Path | None:
    """The folder that a run goes on in; None when it is to have a new one.

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


def main(arguments: list[str]) -> int:
    """Run ``fit`` or ``validate``; returns the exit code."""
    quiet_libraries()
    try:
        _run(arguments)
    except Stopped as stop:
        # Lightning kills a run of which a process that it launched ends with an error.
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return 0
        print(f"\nracro-pl {arguments[0]}: {printable(str(stop), lines=True)}", file=sys.stderr)
        return stop.exit_code
    return 0


def _run(arguments: list[str]) -> None:
    RacroCLI(
        RacroModule,
        RacroDataModule,
        # Arguments that are the process's own are left for Lightning to find: it warns about others.
        args=None if arguments == sys.argv[1:] else arguments,
        auto_configure_optimizers=False,
        # A usage line of one's own: the generated one is a page of flags in front of every parse error.
        parser_kwargs={
            "prog": "racro-pl",
            **{name: {"usage": f"racro-pl {name} --config FILE [options]"} for name in RacroCLI.subcommands()},
        },
        seed_everything_default=1,
        trainer_defaults={
            "max_epochs": -1,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            # Tensors made under inference mode (validation) could never meet autograd again.
            "inference_mode": False,
            "callbacks": [
                StepProgressBar(),
                Preflight(),
                CaptionLog(),
                CaptionWatch(),
                LivePage(),
                SaveResult(),
                SolvedQuestions(),
            ],
        },
    )
