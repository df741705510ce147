"""``live.html`` in the run's folder: how the run goes, in one file that a browser opens and that renews itself."""

from __future__ import annotations

import datetime
import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from lightning.pytorch import Callback, Trainer

from racro_pl.files import write_atomically
from racro_pl.images import ImageError, image_url, open_image
from racro_pl.training.checkpointing.resume_logs import METRICS, read_table
from racro_pl.training.checkpointing.run_folder import run_folder
from racro_pl.training.metrics.step import PHASES
from racro_pl.training.module import RacroModule
from racro_pl.types import ImageRef, Rewards, Rollout, at_least, require_all

THUMBNAIL_PX = 192
MAX_POINTS = 600
"""Of the reward curve; longer runs are thinned."""
COLOURS = ("#5b8def", "#e0a030", "#58a55c", "#b25cc4")


class LivePage(Callback):
    """Writes the page: curve, time per phase, the reward's counts, newest captions with pictures and answers.

    It is made from ``metrics.csv`` and the step just made, so a resumed run shows all of its steps.

    Args:
        every_s: seconds from one writing to the next, at least.
        captions: how many of the last step's captions it shows, from different questions.
    """

    def __init__(self, every_s: float = 5.0, captions: int = 6) -> None:
        require_all("LivePage", *at_least(0, every_s=every_s, captions=captions))
        self.every_s = every_s
        self.captions = captions
        self._written = -math.inf
        self._started: tuple[float, int] | None = None
        loader = PackageLoader("racro_pl.training.callbacks", "")
        self._template = Environment(loader=loader, autoescape=True).get_template("live.html.j2")

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        """Renew the page, unless that was done a moment ago."""
        if self._started is None:
            self._started = (time.monotonic(), trainer.global_step)
        if time.monotonic() - self._written >= self.every_s:
            self._write(trainer, pl_module, ended=False)

    def on_train_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Write it a last time; it no longer renews itself."""
        self._write(trainer, pl_module, ended=True)

    def _write(self, trainer: Trainer, module: RacroModule, ended: bool) -> None:
        folder = run_folder(trainer)
        self._written = time.monotonic()
        if not trainer.is_global_zero:
            return
        # It holds captions and questions, which may be private.
        write_atomically(folder / "live.html", self._page(trainer, module, folder, ended), owner_only=True)

    def _page(self, trainer: Trainer, module: RacroModule, folder: Path, ended: bool) -> str:
        rows = read_table(folder / METRICS)[1] if (folder / METRICS).is_file() else []
        reward = series(rows, "reward/mean")
        accuracy = [(made, value) for made, value in series(rows, "val/accuracy") if math.isfinite(value)]
        known = [value for _, value in reward if math.isfinite(value)]
        marks = axis([*known, *(value for _, value in accuracy)])
        step, metrics = trainer.global_step, trainer.callback_metrics
        seconds = {name: float(metrics.get(f"seconds/{name}", 0.0)) for name in PHASES}
        whole = max(sum(seconds.values()), 1e-9)
        return self._template.render(
            name=f"{folder.parent.name}/{folder.name}",
            step=step,
            steps=trainer.max_steps if trainer.max_steps > 0 else None,
            left=None if ended else self._time_left(trainer),
            ended=ended,
            refresh_s=max(2, round(self.every_s)),
            written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
            marks=[(f"{mark:g}", points([(0, mark)], step, marks)[0][1]) for mark in marks],
            reward=[points(part, step, marks) for part in unbroken(reward[:: len(reward) // MAX_POINTS + 1])],
            accuracy=points(accuracy, step, marks),
            last_reward=f"{known[-1]:.3f}" if known else "none yet",
            last_accuracy=f"{accuracy[-1][1]:.1%}" if accuracy else "none yet",
            seconds=f"{float(metrics.get('seconds/step', 0.0)):.2f}",
            phases=[
                {"name": name, "seconds": f"{each:.2f}", "share": 100 * each / whole, "colour": colour}
                for (name, each), colour in zip(seconds.items(), COLOURS, strict=True)
            ],
            counts=[
                (name.removeprefix("reasoner/"), f"{float(value):g}")
                for name, value in sorted(metrics.items())
                if name.startswith("reasoner/")
            ],
            captions=[_shown(*group) for group in module.first_role(module.last_step)[: self.captions]],
        )

    def _time_left(self, trainer: Trainer) -> str | None:
        since, first = self._started or (0.0, 0)
        done = trainer.global_step - first
        if trainer.max_steps <= 0 or done <= 0:
            return None
        seconds = (time.monotonic() - since) / done * (trainer.max_steps - trainer.global_step)
        return str(datetime.timedelta(seconds=round(seconds)))


def series(rows: Sequence[dict[str, str]], name: str) -> list[tuple[int, float]]:
    """(steps made, value) of one column of ``metrics.csv``; a step that had no number has NaN."""
    found = [(int(row["step"]) + 1, float(row[name])) for row in rows if row.get(name)]
    return [(step, value if math.isfinite(value) else math.nan) for step, value in found]


def unbroken(values: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """The stretches between steps without a number: a line across those would show values that never were."""
    groups = itertools.groupby(values, lambda each: math.isfinite(each[1]))
    return [list(group) for known, group in groups if known]


def axis(values: Sequence[float]) -> list[float]:
    """Evenly spaced marks from 0 to 1, or as far as values lie beyond."""
    low, high = min([0.0, *values]), max([1.0, *values])
    step = 0.5
    while (high - low) / step > 4:
        step *= 2
    return [step * place for place in range(math.floor(low / step), math.ceil(high / step) + 1)]


def points(values: Sequence[tuple[int, float]], steps: int, marks: Sequence[float]) -> list[tuple[float, float]]:
    """Where values lie in the page's drawing, whose axis goes from the first of the marks to the last."""
    low, high = marks[0], marks[-1]
    return [
        (round(36 + 594 * step / max(steps, 1), 1), round(200 - 180 * (value - low) / (high - low), 1))
        for step, value in values
    ]


def _shown(rollout: Rollout, rewards: Rewards) -> dict[str, str | None]:
    """The first caption of a group: not its best, so that the page shows what is usual."""
    found = next(iter(rewards.extracted[0]), None)
    if not rewards.scored[0]:
        verdict, answer = "dim", f"no score: {rewards.reasons[0]}"
    else:
        # Not the reward: a wrong answer may earn something too. A reward of the user's own may know no right and wrong.
        right = rewards.parts.get("correct")
        verdict = "" if right is None else "good" if right[0] > 0.5 else "bad"
        answer = f"{found or 'no answer'}: reward {rewards.total[0]:g}"
    return {
        "picture": _thumbnail(rollout.question.images[0]) if rollout.question.images else None,
        "question": rollout.question.text.replace("<image>", "").strip()[:300],
        "gold": rollout.question.answer[:100],
        "caption": rollout.texts[0][:1500],
        "answer": answer[:300],
        "verdict": verdict,
    }


def _thumbnail(image: ImageRef) -> str | None:
    try:
        opened = open_image(image)
    except ImageError:
        return None
    opened.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return image_url(opened)
