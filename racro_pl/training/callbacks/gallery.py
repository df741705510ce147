"""Captions with their pictures in the loggers, every so often: of a few questions that stay, and of a few new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image

from racro_pl.images import ImageError, open_image
from racro_pl.training.module import RacroModule
from racro_pl.types import Question, Rewards, at_least, require_all

COLUMNS = ("step", "question", "gold", "caption", "answer", "verdict", "reward")
SIDE_PX = 512
_IMAGE_TABLES = {"WandbLogger": "wandb", "TrackioLogger": "trackio"}
"""Loggers whose tables hold images, and the package that has the class of those."""


@dataclass(frozen=True)
class Exhibit:
    """One caption and what became of it."""

    kind: str
    """``fixed/1`` to ``fixed/n``, or ``new/1`` to ``new/n``."""
    image: Image.Image
    row: tuple[Any, ...]
    """By ``COLUMNS``."""


Text = tuple[str, Question, str, Rewards]
"""Kind of exhibit, question, caption and rewards."""


class CaptionGallery(Callback):
    """Sends pictures and captions to every configured logger.

    TensorBoard gets images and texts, Weights & Biases and trackio a table with images, MLflow images and a table as
    text files; other loggers are named once and get none. A resumed run logs each step once, as its checkpoint says
    which was last. Steps that a killed run had made since are made again: TensorBoard and MLflow then replace theirs,
    the others have a new run for every ``fit`` unless told otherwise.

    Args:
        every_n_steps: steps from one gallery to the next.
        fixed: the first questions of the validation split, answered again every time (greedy captions).
        new: questions of the step just made, with the first of their sampled captions.
    """

    def __init__(self, every_n_steps: int = 20, fixed: int = 4, new: int = 4) -> None:
        require_all(
            "CaptionGallery",
            *at_least(1, every_n_steps=every_n_steps),
            *at_least(0, fixed=fixed, new=new),
            (fixed + new > 0, "fixed and new are 0; expected at least one question"),
        )
        self.every_n_steps = every_n_steps
        self.fixed = fixed
        self.new = new
        self.last_step = 0
        self._unknown: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_step = state_dict["last_step"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        """Log a gallery when its step has come."""
        step = trainer.global_step
        if step < self.last_step + self.every_n_steps or not trainer.loggers:
            return
        self.last_step = step - step % self.every_n_steps
        texts = [*self._fixed(trainer, pl_module), *self._new(pl_module)]
        exhibits = [exhibit for text in texts if (exhibit := _exhibit(step, *text)) is not None]
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                self._send(logger, exhibits, step)

    def _fixed(self, trainer: Trainer, module: RacroModule) -> list[Text]:
        """Every rank answers: an engine may need all of them."""
        questions = trainer.datamodule.questions["validation"][: self.fixed]  # type: ignore[attr-defined]
        if not questions:
            return []
        with module.sampling():
            answered = module.answer(questions)
        return [
            (f"fixed/{number}", item.question, item.caption, item.rewards) for number, item in enumerate(answered, 1)
        ]

    def _new(self, module: RacroModule) -> list[Text]:
        groups = module.first_role(module.last_step)[: self.new]
        return [
            (f"new/{number}", rollout.question, rollout.texts[0], rewards)
            for number, (rollout, rewards) in enumerate(groups, 1)
        ]

    def _send(self, logger: Logger, exhibits: Sequence[Exhibit], step: int) -> None:
        name = type(logger).__name__
        if isinstance(logger, TensorBoardLogger):
            for exhibit in exhibits:
                # The axis of all metrics: a step's number counts from 0 there.
                logger.experiment.add_image(
                    f"captions/{exhibit.kind}", np.asarray(exhibit.image), step - 1, dataformats="HWC"
                )
                logger.experiment.add_text(f"captions/{exhibit.kind}", _markdown(exhibit), step - 1)
        elif name in _IMAGE_TABLES:
            image_class = import_module(_IMAGE_TABLES[name]).Image
            rows = [[*exhibit.row, image_class(exhibit.image)] for exhibit in exhibits]
            logger.log_table("captions", columns=[*COLUMNS, "image"], data=rows, step=step - 1)  # type: ignore[attr-defined]
        elif name == "MLFlowLogger":
            client, run = logger.experiment, logger.run_id  # type: ignore[attr-defined]
            for exhibit in exhibits:
                client.log_image(run, exhibit.image, f"captions/{exhibit.kind}/step_{step:06d}.png")
            text = "\n\n".join(f"## {exhibit.kind}\n\n{_markdown(exhibit)}" for exhibit in exhibits)
            client.log_text(run, text, f"captions/step_{step:06d}.md")
        elif name != "ContinuedCSVLogger" and name not in self._unknown:
            self._unknown.add(name)
            print(f"CaptionGallery: {name} gets no pictures; TensorBoard, Weights & Biases, MLflow and trackio do")


def _exhibit(step: int, kind: str, question: Question, caption: str, rewards: Rewards) -> Exhibit | None:
    try:
        image = open_image(question.images[0])
    except (ImageError, IndexError):
        return None
    image.thumbnail((SIDE_PX, SIDE_PX))
    scored = rewards.scored[0]
    verdict = ("right" if rewards.total[0] > 0.5 else "wrong") if scored else f"no score: {rewards.reasons[0]}"
    answer = next(iter(rewards.extracted[0]), None) or ""
    reward = rewards.total[0] if scored else None
    text = question.text.replace("<image>", "").strip()
    return Exhibit(kind, image, (step, text, question.answer, caption, answer, verdict, reward))


def _markdown(exhibit: Exhibit) -> str:
    """As text that no renderer reads as markup: every line is code."""
    lines = [f"{name}: {value}" for name, value in zip(COLUMNS, exhibit.row, strict=True)]
    return "\n".join(f"    {line}" for text in lines for line in str(text).splitlines() or [""])
