"""When a run is saved: ``checkpoints/last.ckpt`` to resume from, ``checkpoints/best.ckpt`` to use.

A checkpoint stands between two steps: all that belongs to the steps before it has happened and is on disk (captions,
metrics, a validation that was due), and nothing of the steps after it. That is what makes a resumed run an exact
continuation; see docs/resume.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from racro_pl.training.checkpointing.io import clear_leftovers, rename_checkpoint
from racro_pl.training.checkpointing.resume_logs import has_row, rewind
from racro_pl.training.checkpointing.run_folder import run_folder
from racro_pl.training.checkpointing.signals import Stopped, StopSignals
from racro_pl.training.distributed import leave_together
from racro_pl.training.metrics.scores import sets_of
from racro_pl.types import at_least, require_all


class RunCheckpoint(ModelCheckpoint):
    """Keeps the newest state and the best one by a metric of the validation; stops the run when a signal asks for it.

    Args:
        every_n_steps: steps from one ``last.ckpt`` to the next; what a killed run loses at most. One is also written
            after the last step, and when the run is asked to stop.
        monitor: the metric: of the validation split, or of a benchmark of ``data.validation``, such as
            ``val/mathvista/accuracy`` or ``val/dynamath/worst_case``. The highest is the best; of a share
            (``..._share``) the lowest.
    """

    def __init__(self, every_n_steps: int = 50, monitor: str = "val/accuracy") -> None:
        require_all("checkpoint", *at_least(1, every_n_steps=every_n_steps))
        super().__init__(
            filename="best",
            monitor=monitor,
            mode="min" if monitor.endswith("_share") else "max",
            auto_insert_metric_name=False,
            save_on_train_epoch_end=False,
            # With it the best of a resumed run would stand beside that of the run before, as best-v1.
            enable_version_counter=False,
        )
        self.every_n_steps = every_n_steps
        self.signals = StopSignals()
        self._stop: int | None = None
        """The signal that stops the run after this step."""
        self._due = False
        """Whether the step just made is to be saved."""
        self._saved_step = -1
        self._row: tuple[int, dict[str, float]] | None = None
        """Axis value and metrics of a step whose row the loggers get just after its checkpoint."""
        self._resumed = False

    @property
    def state_key(self) -> str:
        """The same whatever is monitored: a run resumed with another monitor still finds its place in this state."""
        return self._generate_state_key(
            monitor="val/accuracy",
            mode="max",
            every_n_train_steps=self._every_n_train_steps,
            every_n_epochs=self._every_n_epochs,
            train_time_interval=self._train_time_interval,
        )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"row": self._row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The best so far stays the best, also when the run's folder was moved. A branch begins with a best of its own.
        best = self._place("best.ckpt")
        if state_dict["monitor"] != self.monitor:
            # What was best by another metric says nothing about this one.
            state_dict |= {"best_model_path": "", "best_model_score": None, "best_k_models": {}}
            state_dict |= {"kth_best_model_path": "", "kth_value": self.kth_value, "current_score": None}
        if best.is_file() and state_dict["best_model_path"]:
            state_dict |= {"best_model_path": str(best), "kth_best_model_path": str(best), "dirpath": self.dirpath}
            state_dict["best_k_models"] = {str(best): state_dict["best_model_score"]}
        super().load_state_dict(state_dict)
        self.current_score = state_dict["current_score"]  # Lightning saves it, and forgets it
        self._row, self._resumed = state_dict["row"], True

    # ------------------------------------------------------------------ beginning and end

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back what an interrupted run did after the checkpoint; from now on, handle signals."""
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            for place in (folder, folder / "checkpoints"):
                clear_leftovers(place)
            if self._resumed:
                self._take_back(trainer, folder)
        trainer.strategy.barrier("run folder is as the checkpoint left it")
        epochs = trainer.fit_loop.epoch_progress.total
        if self._resumed and epochs.completed == epochs.ready:
            # Saved after an epoch's last step. Lightning would resume the next epoch as with one that has begun:
            # without its start hooks, and with counts that a second resumption could not make sense of.
            trainer.fit_loop.reset_restart_stage()
        self._resumed, self._row = False, None
        self.signals.install(trainer)

    def _take_back(self, trainer: Trainer, folder: Path) -> None:
        rewind(folder, trainer.global_step)
        # Killed between the checkpoint and the row? A run that begins a folder of its own has no use for it.
        if self._row is not None and any(folder.glob("captions*.jsonl")) and not has_row(folder, self._row[0]):
            for logger in trainer.loggers:
                logger.log_metrics(self._row[1], self._row[0])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last callback of all: ``last.ckpt`` says that the run is finished only when it is."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if self._saved_step != trainer.global_step:
                trainer.save_checkpoint(self._place("finishing.ckpt"), weights_only=False)
            if trainer.is_global_zero:
                rename_checkpoint(self._place("finishing.ckpt"), self._place("last.ckpt"))
            trainer.strategy.barrier("last.ckpt is there")
        self.signals.restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.signals.restore()

    # ------------------------------------------------------------------ between two steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save when it is time; but where a validation is due it comes first, since a resumed run would skip it."""
        last = is_last_step(trainer)
        self._stop = None if last else self.signals.agreed()
        in_time = trainer.global_step % self.every_n_steps == 0
        self._due = ends_now(trainer) or self._stop is not None or in_time
        loop = trainer.fit_loop.epoch_loop
        # Without validation questions Lightning begins a validation all the same, and ends it before any hook.
        validating = bool(sets_of(trainer)) and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        metrics = trainer._logger_connector.metrics["log"]
        row = {"epoch": trainer.current_epoch} | {name: float(value) for name, value in metrics.items()}
        self._row = (loop._batches_that_stepped, row)
        # Asked to stop, save all the same: the validation may take longer than the sender of the signal waits.
        if not validating or self._stop is not None:
            self._save_if_due(trainer, stop=not validating)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the best; then save what was put off."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._due = self._due or ends_now(trainer)
            self._row = None
            self._save_if_due(trainer, stop=True)

    def _save_if_due(self, trainer: Trainer, *, stop: bool) -> None:
        if not self._due or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # The last state gets its name when the run has written all else: a run killed just before then finishes.
        finishing = ends_now(trainer) and self._stop is None
        trainer.save_checkpoint(self._place("finishing.ckpt" if finishing else "last.ckpt"), weights_only=False)
        self._saved_step = trainer.global_step
        if stop and self._stop is not None:
            self._leave(trainer, self._stop)

    def _leave(self, trainer: Trainer, signum: int) -> None:
        if self._row is not None:
            trainer._logger_connector.update_train_step_metrics()  # Lightning would, had we gone on
        if signum == self.signals.requeue:  # SLURM's warning that the job's time is nearly over
            # Lightning's own: saves hpc_ckpt_k.ckpt in the run's folder and calls scontrol.
            trainer._signal_connector._slurm_sigusr_handler_fn(signum, None)  # type: ignore[arg-type]
        leave_together()
        raise Stopped(signum, self._place("last.ckpt"))

    def _place(self, name: str) -> Path:
        return Path(str(self.dirpath)) / name


def is_last_step(trainer: Trainer) -> bool:
    """Whether ``max_steps`` are made."""
    return 0 <= trainer.max_steps <= trainer.global_step


def ends_now(trainer: Trainer) -> bool:
    """Whether no step follows: asked to stop early (``max_time``), a run still makes its ``min_steps``."""
    return is_last_step(trainer) or (trainer.should_stop and trainer.fit_loop._can_stop_early)
