"""What a run leaves behind: every caption, the curve, and a sheet of captions before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.table import Table
from rich.text import Text

from racro_pl.images import open_image
from racro_pl.terminal import Console
from racro_pl.text.printable import json_line
from racro_pl.text.thoughts import without_thoughts
from racro_pl.training.accuracy import Answered
from racro_pl.training.module import RacroModule
from racro_pl.training.strategy import gather
from racro_pl.types import RacroError


def run_folder(trainer: Trainer) -> Path:
    """Where the run writes: ``trainer.log_dir``, or the default root when a logger has no folder.

    To be asked by every rank or none: the ranks agree on the answer by a broadcast.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


class CaptionLog(Callback):
    """Appends every sampled caption to ``captions.jsonl``: one JSON object a line, with all that made its reward."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        """One line per caption: step, question, caption (and what was written, where thoughts were cut from it),
        reasoner answers, verdict, reward and its parts."""
        folder = run_folder(trainer)
        lines = []
        for rollout, rewards in pl_module.last_step:
            for index, text in enumerate(rollout.texts):
                caption = without_thoughts(text)
                record = {
                    "step": trainer.global_step,
                    "question_id": rollout.question.id,
                    "question": rollout.question.text,
                    "gold": rollout.question.answer,
                    "caption": caption,
                    **({"written": text} if text != caption else {}),
                    "caption_tokens": int(rollout.mask[index].sum()),
                    "truncated": rollout.truncated[index],
                    "adapter_version": rollout.adapter_version,
                    "reasoner_answers": rewards.answers[index],
                    "extracted": rewards.extracted[index],
                    "scored": rewards.scored[index],
                    "reason": rewards.reasons[index],
                    "reward": rewards.total[index] if rewards.scored[index] else None,
                    "parts": {name: values[index] for name, values in rewards.parts.items()},
                }
                lines.append(json_line(record))
        if not lines:
            return
        name = "captions.jsonl" if trainer.world_size == 1 else f"captions-rank{trainer.global_rank}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


class SolvedQuestions(Callback):
    """Tells the data module which questions were solved, where its curriculum draws those less often.

    A question is solved when all its captions have a score and every one led to the right answer.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        """Join what all ranks found, so that they go on to draw the same order."""
        curriculum = getattr(trainer.datamodule, "curriculum", None)  # type: ignore[attr-defined]
        if curriculum is None or curriculum.solved_weight == 1:
            return
        found = {
            rollout.question.id: all(rewards.scored) and min(rewards.parts["correct"]) == 1.0
            for rollout, rewards in pl_module.last_step
        }
        everywhere = [found] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(everywhere, found)
        for results in everywhere:
            trainer.datamodule.note_solved(results)  # type: ignore[attr-defined]


class StepProgressBar(RichProgressBar):
    """Lightning's bar; epochs are of no interest, and their number has no end here."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Without the logger's version number."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class SaveResult(Callback):
    """Writes what was trained to the run folder: ``adapter/`` (PEFT), or ``model/`` after full fine-tuning."""

    def on_train_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Save, on one rank."""
        folder = run_folder(trainer)
        full = pl_module.policy_settings.lora is None
        # Every rank has a part of what is trained; adapters are whole everywhere.
        weights = gather(pl_module.captioner.model.state_dict()) if full else None
        if trainer.is_global_zero:
            pl_module.captioner.save(folder / ("model" if full else "adapter"), weights)


class LearningReport(Callback):
    """Held-out accuracy before and after, as a line, a table by question type, a curve and a sheet of captions.

    Args:
        questions: how many questions of the test split to answer before and after.
        sheet_images: how many of them the sheet shows.
    """

    def __init__(self, questions: int = 500, sheet_images: int = 8) -> None:
        if questions < 1:
            raise ValueError(f"questions is {questions}; expected 1 or more")
        self.questions = questions
        self.sheet_images = sheet_images
        self.reward: list[tuple[int, float]] = []
        self.accuracy: list[tuple[int, float]] = []
        self.before: tuple[dict[str, float], list[str]] | None = None

    def state_dict(self) -> dict[str, Any]:
        asked = {"questions": self.questions, "sheet_images": self.sheet_images}
        return asked | {"reward": self.reward, "accuracy": self.accuracy, "before": self.before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in ("questions", "sheet_images"):
            if getattr(self, name) != state_dict[name]:
                raise RacroError(
                    f"LearningReport: {name} is {getattr(self, name)}, but the run that goes on began with "
                    f"{state_dict[name]}; what is compared before and after has to be the same: give that number"
                )
        self.reward, self.accuracy = list(state_dict["reward"]), list(state_dict["accuracy"])
        self.before = state_dict["before"]

    def on_train_start(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Answer the held-out questions with the captioner as it is."""
        if self.before is None:
            figures, answered = self._measure(trainer, pl_module)
            self.before = (figures, [item.caption for item in answered[: self.sheet_images]])
            self.accuracy.append((trainer.global_step, figures["accuracy"]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        self.reward.append((trainer.global_step, float(trainer.callback_metrics["reward/mean"])))

    def on_validation_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        if not trainer.sanity_checking:
            self.accuracy.append((trainer.global_step, float(trainer.callback_metrics["val/accuracy"])))

    def on_train_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Answer them again and write the report."""
        if self.before is None:
            return
        after, answered = self._measure(trainer, pl_module)
        before, captions_before = self.before
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        (folder / "held_out.json").write_text(json.dumps({"before": before, "after": after}, indent=2) + "\n")
        from racro_pl.training.callbacks.pictures import draw_captions, draw_curve

        draw_curve(folder / "curve.png", self.accuracy, self.reward)
        shown = answered[: self.sheet_images]
        images = [open_image(item.question.images[0]) for item in shown]
        draw_captions(folder / "captions.png", images, shown, captions_before)
        console = Console()
        console.print(_table(before, after))
        console.print(
            f"curve and captions: {folder / 'curve.png'}, {folder / 'captions.png'}", markup=False, soft_wrap=True
        )
        console.print(
            f"held-out accuracy: {before['accuracy']:.1%} -> {after['accuracy']:.1%} "
            f"({int(after['questions'])} questions)",
            highlight=False,
        )

    def _measure(self, trainer: Trainer, module: RacroModule) -> tuple[dict[str, float], list[Answered]]:
        questions = trainer.datamodule.questions["test"][: self.questions]  # type: ignore[attr-defined]
        metric = module.new_accuracy("test")
        answered: list[Answered] = []
        # Every rank answers its share; the metric adds them up.
        mine = questions[trainer.global_rank :: trainer.world_size]
        with module.sampling():
            for start in range(0, len(mine), 64):
                answered += module.answer(mine[start : start + 64])
        for item in answered:
            metric.update(item)
        return metric.compute(), answered


def _table(before: dict[str, float], after: dict[str, float]) -> Table:
    table = Table("held-out", "before", "after")
    for name in after:
        if name != "questions":
            table.add_row(Text(name), f"{before[name]:.1%}", f"{after[name]:.1%}")
    return table
