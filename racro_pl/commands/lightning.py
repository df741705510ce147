"""``fit`` and ``validate``: LightningCLI over the typed signatures of the module and the data module."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from racro_pl.commands.guard import HELP, GuardedErrors, guard, offer_completion, refuse_keys, restrict_imports
from racro_pl.commands.quiet import quiet_libraries
from racro_pl.commands.run_place import NewFolder, OldFolder, continued_folder, is_first_process, shared_version
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.files import place_error, write_atomically
from racro_pl.runs import folder_of
from racro_pl.text.printable import printable
from racro_pl.training.callbacks.caption_watch import CaptionWatch
from racro_pl.training.callbacks.live_page import LivePage
from racro_pl.training.callbacks.parameter_count import ParameterCount
from racro_pl.training.callbacks.preflight import Preflight
from racro_pl.training.callbacks.progress import PlainProgress, StepProgressBar, outliving_readers
from racro_pl.training.callbacks.records import CaptionLog, SaveResult, SolvedQuestions
from racro_pl.training.checkpointing.callback import RunCheckpoint
from racro_pl.training.checkpointing.io import RacroCheckpointIO, checkpoint_step, newest_checkpoint
from racro_pl.training.checkpointing.resume_logs import ContinuedCSVLogger
from racro_pl.training.checkpointing.signals import Stopped
from racro_pl.training.module import RacroModule
from racro_pl.training.startup import check_trainer
from racro_pl.types import RacroError


class _Parser(GuardedErrors, LightningArgumentParser):
    """Lightning's."""


class _SaveConfig(SaveConfigCallback):
    """Lightning's; the file is its owner's alone, since it names servers and folders. It is never there before."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(str(trainer.log_dir))  # every rank asks: the answer is agreed on by a broadcast
        if trainer.is_global_zero and not self.already_saved:
            folder.mkdir(parents=True, exist_ok=True)
            text = self.parser.dump(self.config, skip_none=False)
            write_atomically(folder / self.config_filename, text, owner_only=True)
        self.already_saved = True


class RacroCLI(LightningCLI):
    """Adds the run folder: ``runs/<name>/version_k/`` with config, metrics, captions and checkpoints.

    The folder is the same whatever loggers are configured: those of a configuration are added to the run's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.place: NewFolder | OldFolder | None = None
        try:
            super().__init__(*args, **kwargs)
        except BaseException as error:
            if self.place is not None:
                self.place.discard()
                self._tell_way_on(error, newest_checkpoint(self.place.path))
            raise

    def _tell_way_on(self, error: BaseException, checkpoint: Path | None) -> None:
        """Say what to resume from when a file of a run cannot be written; of a checkpoint its own error says it."""
        reason = place_error(error) if isinstance(error, OSError) else None
        if reason is not None and checkpoint is not None and self.subcommand == "fit":
            resume = f"then resume with --ckpt_path {shlex.quote(str(checkpoint))}"
            raise RacroError(f"{reason}, {resume}") from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_own_arguments(parser)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
                for name in ("fit", "validate")}  # fmt: skip

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """From the command line, which keeps ``--allow-imports`` for the processes that Lightning launches by it."""
        self.config = parser.parse_args(guard(args))

    def _parse_ckpt_path(self) -> None:
        """Checkpoints bring no settings of their own: the configuration alone says what runs."""

    def before_instantiate_classes(self) -> None:
        """Once more over all that was read: files can name further files."""
        refuse_keys(self.config[self.subcommand].as_dict())

    def instantiate_classes(self) -> None:
        if (threads := self._get(self.config, "threads")) is not None:
            torch.set_num_threads(threads)
        # Constructors refuse bad values with a ValueError that says what to do; the user needs that line alone.
        # A logger whose package is missing says so too.
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException, ModuleNotFoundError) as error:
            raise RacroError(_reason(error)) from error

    def after_instantiate_classes(self) -> None:
        # The saved configuration shows what a null stood for, and which adapter was started from.
        model = self._get(self.config, "model")
        for name, value in self.model.objective.resolved().items():
            model.objective[name] = value
        model.policy.adapter = self.model.policy_settings.adapter
        check_trainer(self.trainer, self.model.policy_settings)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        if config.get("default_root_dir") is not None:
            raise RacroError(
                f"trainer.default_root_dir {config['default_root_dir']!r} has no effect here: a run writes to "
                "RUNS/NAME/version_k; set runs (the folder of all runs) and name"
            )
        folder, steps = self._choose_folder()
        kwargs |= {"logger": _loggers(folder, steps, config.get("logger")), "default_root_dir": str(folder)}
        if (folder / "config.yaml").exists():
            self.save_config_kwargs |= {"config_filename": f"config-step={steps}.yaml"}
        # A callback of the configuration takes the place of the default one. It comes after those that stay: what was
        # trained is written before anything reports on it.
        callbacks = _listed(config.get("callbacks"))
        own = {type(callback) for callback in callbacks}
        defaults = [callback for callback in self.trainer_defaults["callbacks"] if type(callback) not in own]
        kwargs["callbacks"] = [*defaults, *callbacks]
        self.trainer_defaults["callbacks"] = []
        kwargs["plugins"] = [*_listed(config.get("plugins")), RacroCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        # What a run says may be of no interest any more; what it learns is.
        with outliving_readers() if subcommand == "fit" else nullcontext():
            super()._run_subcommand(subcommand)

    def _choose_folder(self) -> tuple[Path, int | None]:
        """The run's folder, and how many steps its checkpoint has seen when there is one to resume from."""
        run = folder_of(Path(self._get(self.config_init, "runs")), self._get(self.config_init, "name"))
        asked = self._get(self.config_init, "ckpt_path")
        planned = NewFolder.planned(run)
        folder = continued_folder(run, asked) if self.subcommand == "fit" else None
        if folder is None or not folder.exists():
            folder = folder or shared_version(run)
            self.place = NewFolder(folder, planned.parents) if is_first_process() else None
            return folder, self._steps(asked)
        self.place = OldFolder.found(folder) if is_first_process() else None
        if asked is None or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0:
            # A job that SLURM starts again has the command line of the first time.
            asked = newest_checkpoint(folder) or asked
            self.config_init[self.subcommand]["ckpt_path"] = None if asked is None else str(asked)
        return folder, self._steps(asked)

    def _steps(self, checkpoint: str | Path | None) -> int | None:
        return None if checkpoint is None or self.subcommand != "fit" else checkpoint_step(Path(checkpoint))


def add_own_arguments(parser: LightningArgumentParser) -> None:
    """What ``fit`` and ``validate`` take beside Lightning's arguments."""
    parser.add_argument("--name", type=str, default="racro", help="the run's folder is runs/<name>/version_k/")
    parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
    parser.add_argument(
        "--threads", type=PositiveInt | None, default=None,
        help="CPU threads of each process; null leaves it to torch. Small models are fastest on one",
    )  # fmt: skip
    parser.add_lightning_class_args(RunCheckpoint, "checkpoint")


def _loggers(folder: Path, steps: int | None, configured: Any) -> list[Logger]:
    """The run's own loggers first (Lightning's ``log_dir`` is the first one's), then those of the configuration.

    Args:
        folder: the run's: one for both, since left alone each would pick its own next version.
        steps: that the checkpoint has seen.
        configured: ``trainer.logger``: loggers, or false for ``metrics.csv`` alone.
    """
    place = (folder.parent.parent, folder.parent.name, folder.name)
    table = ContinuedCSVLogger(*place, flush_logs_every_n_steps=1)
    if configured is False:
        return [table]
    further = [] if configured is True else _listed(configured)
    return [table, TensorBoardLogger(*place, purge_step=steps), *further]


def _reason(error: BaseException) -> str:
    """What a part's constructor says against its arguments.

    Of a part that may also be null the parser tells it once for each kind that it tried, and repeats all values
    after it, mistyped keys included.
    """
    own: BaseException | None = error
    while own is not None and not isinstance(own, RacroError):
        own = own.__cause__ or own.__context__
    return str(error).split("\nGiven value", 1)[0] if own is None else str(own)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def parts_of(path: str, *, allow_imports: bool = False) -> tuple[RacroModule, RacroDataModule]:
    """The module and data module of a configuration of ``fit``, without a trainer or a run folder.

    Args:
        allow_imports: let it name classes outside this package, Lightning and torch.

    Raises:
        RacroError: the file is missing, its ``model`` and ``data`` do not fit their schema, it names a class that is
            not allowed, or it holds a key.
    """
    restrict_imports(allow=allow_imports)
    parser = _Parser(exit_on_error=False)
    parser.add_lightning_class_args(RacroModule, "model", subclass_mode=False)
    parser.add_lightning_class_args(RacroDataModule, "data", subclass_mode=False)
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        sections = {name: content[name] for name in ("model", "data")}
        refuse_keys(sections)
        parts = parser.instantiate(parser.parse_object(sections))
    except RacroError:
        raise
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, ArgumentError) as error:
        raise RacroError(f"{path} is not a configuration of fit: {error}") from error
    return parts.model, parts.data


def main(arguments: list[str]) -> int:
    """Run ``fit`` or ``validate``; returns the exit code."""
    quiet_libraries()
    try:
        _run(arguments)
    except Stopped as stop:
        # Lightning kills a run of which a process that it launched ends with an error.
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return 0
        with outliving_readers():  # a run is also stopped by the end of its terminal
            print(f"\nracro-pl {arguments[0]}: {printable(str(stop), lines=True)}", file=sys.stderr)
        return stop.exit_code
    return 0


def _run(arguments: list[str]) -> None:
    offer_completion()
    if arguments[1:2] == ["--print_completion"]:  # Lightning's parser has it before the subcommand
        arguments = arguments[1:]
    RacroCLI(
        RacroModule,
        RacroDataModule,
        args=arguments,
        parser_class=_Parser,
        save_config_callback=_SaveConfig,
        auto_configure_optimizers=False,
        # A usage line of one's own: the generated one is a page of flags in front of every parse error.
        parser_kwargs={"prog": "racro-pl"}
        | {
            name: {"usage": f"racro-pl {name} --config FILE [options]", "description": HELP}
            for name in RacroCLI.subcommands()
        },
        seed_everything_default=1,
        trainer_defaults={
            "max_epochs": -1,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            # Tensors made under inference mode (validation) could never meet autograd again.
            "inference_mode": False,
            "enable_model_summary": False,
            "callbacks": [
                StepProgressBar() if sys.stdout.isatty() else PlainProgress(),
                ParameterCount(),
                Preflight(),
                CaptionLog(),
                CaptionWatch(),
                LivePage(),
                SaveResult(),
                SolvedQuestions(),
            ],
        },
    )
