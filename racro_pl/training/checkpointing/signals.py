"""SIGTERM, Ctrl-C, the end of a terminal and SLURM's warning as a wish to stop, which is granted between two steps.

A signal comes to one rank or to all, at any moment. Its handler only takes note. After each step the ranks compare
notes, so that all of them stop after the same step, and none waits for another in a collective.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from racro_pl.training.distributed import all_reduce


class Stopped(BaseException):
    """The run was asked to stop, and has. Like KeyboardInterrupt, nothing that handles errors should catch it."""

    def __init__(self, signum: int, checkpoint: Path | None = None) -> None:
        """
        Args:
            signum: the signal.
            checkpoint: what was saved; None when the run was to stop at once.
        """
        then = "" if checkpoint is None else f"; resume with --ckpt_path {shlex.quote(str(checkpoint))}"
        super().__init__(f"stopped by {signal.Signals(signum).name}{then}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell would report it: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signum


class StopSignals:
    """Notes signals while a run trains; before and after, they do what they did without it."""

    def __init__(self) -> None:
        self._order: list[int] = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM]
        """Of several signals, the last of this list counts."""
        self.requeue: int | None = None
        """By which SLURM warns of the end of a job's time."""
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def install(self, trainer: Trainer) -> None:
        """Take note from now on. To be called after Lightning has set its own handlers: theirs act at once, in the
        middle of a step and, with several ranks, in the middle of a collective.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # no thread but the main one may set handlers: then signals do what they did before
        self.requeue = requeue_signal(trainer)
        if self.requeue is not None:
            self._order = [*(each for each in self._order if each != self.requeue), self.requeue]
        self._received = signal.SIGTERM if trainer.received_sigterm else None
        # What nohup has ignored stays so.
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heeded = [each for each in self._order if not (nohup and each == signal.SIGHUP)]
        self._before = {signum: signal.signal(signum, self._note) for signum in heeded}

    def restore(self) -> None:
        """Give signals back to those who handled them before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def agreed(self) -> int | None:
        """The signal that a rank has noted, on all ranks. To be called by all of them: it is a collective."""
        place = -1 if self._received is None else self._order.index(self._received)
        place = int(all_reduce(torch.tensor([float(place)]), "max")[0])
        return None if place < 0 else self._order[place]

    def _note(self, signum: int, frame: object) -> None:
        if signum == signal.SIGINT and self._received == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one ends the process, whatever it is doing
            raise Stopped(signum)
        if self._received is None:
            again = "; Ctrl-C again stops at once" if signum == signal.SIGINT else ""
            # Not print: a handler may come while the same stream is being written. The terminal may be gone.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{signal.Signals(signum).name}: finishing this step, then saving{again}\n".encode())
        known = -1 if self._received is None else self._order.index(self._received)
        self._received = self._order[max(known, self._order.index(signum))]


def requeue_signal(trainer: Trainer) -> int | None:
    """The signal by which SLURM warns of the end of a job's time; None outside SLURM or if not requested."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None
