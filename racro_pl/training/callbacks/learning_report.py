"""What a run learnt: held-out accuracy before and after, as a table, a curve and a sheet of captions."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from rich.table import Table
from rich.text import Text

from racro_pl.files import write_atomically
from racro_pl.images import open_image
from racro_pl.reporting import surviving
from racro_pl.reward import HttpReasoner, InProcessReasoner, Reasoner, RewardFunction, Scorer
from racro_pl.reward.reward_function import rewards_within
from racro_pl.serving.addresses import issued_key
from racro_pl.terminal import Console
from racro_pl.text.captioner_prompt import IMAGE_TAG
from racro_pl.training.callbacks import pictures
from racro_pl.training.callbacks.readers import OWN, Readers, trained_with
from racro_pl.training.checkpointing.run_folder import run_folder
from racro_pl.training.distributed import all_reduce
from racro_pl.training.metrics.accuracy import Answered, PipelineAccuracy, Shown, percent
from racro_pl.training.module import RacroModule
from racro_pl.types import RacroError, at_least, require_all


class LearningReport(Callback):
    """Held-out accuracy before and after, as a line, a table by question type, a curve and a sheet of captions.

    With objective joint the captioner's own answers have a line too.

    Args:
        questions: how many questions of the test split to answer before and after.
        sheet_images: how many of them the sheet shows.
        reasoners: further ones, which training does not ask, that answer from the same captions: a line for each.
    """

    def __init__(self, questions: int = 500, sheet_images: int = 8, reasoners: list[Reasoner] | None = None) -> None:
        require_all("LearningReport", *at_least(1, questions=questions))
        self.questions = questions
        self.sheet_images = sheet_images
        self.readers = Readers(reasoners or [])
        self.reward: list[tuple[int, float]] = []
        self.accuracy: list[tuple[int, float]] = []
        self.before: tuple[dict[str, float], list[Shown]] | None = None
        self.possible = False
        """Whether there are held-out questions."""

    def _asked(self) -> dict[str, Any]:
        return {"questions": self.questions, "sheet_images": self.sheet_images, "reasoners": self.readers.names}

    def state_dict(self) -> dict[str, Any]:
        # Plain values: checkpoints are read without unpickling classes.
        noted = None if self.before is None else (self.before[0], [tuple(shown) for shown in self.before[1]])
        return self._asked() | {"reward": self.reward, "accuracy": self.accuracy, "before": noted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = {"reasoners": []} | state_dict  # earlier runs have no further ones
        for name, value in self._asked().items():
            if value != before[name]:
                raise RacroError(
                    f"LearningReport: {name} is {value}, but the run being resumed began with {before[name]}; what is "
                    f"compared before and after has to be the same: set {name} as it was"
                )
        self.reward, self.accuracy = list(state_dict["reward"]), list(state_dict["accuracy"])
        before = state_dict["before"]
        # Release 0.1.0 noted captions without verdicts.
        self.before = before and (before[0], [Shown(it) if isinstance(it, str) else Shown(*it) for it in before[1]])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for the test split now: before any model is loaded, and not when all steps have been made."""
        if stage != "fit":
            return
        if self.readers.names and pl_module.objective.name == "qa":  # type: ignore[union-attr]
            raise RacroError(
                "LearningReport.reasoners read captions, and with objective qa the captioner writes answers; leave the "
                "reasoners out, or train with cro or vpo"
            )
        self.possible = bool(trainer.datamodule.questions["test"])  # type: ignore[attr-defined]
        if not self.possible:
            rank_zero_info(
                "LearningReport: the data has no test split, so no held-out accuracy is compared before and after "
                "training; give the reader a test split for it"
            )

    def on_train_start(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Answer the held-out questions with the captioner as it is.

        Raises:
            Exception: whatever goes wrong: now it costs no training.
        """
        if self.before is None and self.possible:
            self.readers.check()
            found = self._measure(trainer, pl_module)
            if isinstance(found, Exception):
                raise found
            metrics, answered = found
            self.before = (metrics, [item.shown for item in answered[: self.sheet_images]])
            self.accuracy.append((trainer.global_step, metrics["accuracy"]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        self.reward.append((trainer.global_step, float(trainer.callback_metrics["reward/mean"])))

    def on_validation_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        # A run may validate on benchmarks alone.
        if not trainer.sanity_checking and "val/accuracy" in trainer.callback_metrics:
            self.accuracy.append((trainer.global_step, float(trainer.callback_metrics["val/accuracy"])))

    def on_train_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Answer them again and write the report; what goes wrong is a warning, since the training is done."""
        folder = run_folder(trainer)
        found = self._measure(trainer, pl_module) if self.before is not None and self.possible else None
        if not trainer.is_global_zero:
            return
        with surviving("curve.png", folder):
            if self.reward:
                pictures.draw_curve(folder / "curve.png", self.accuracy, self.reward)
                Console().say(f"curve: {folder / 'curve.png'}")
        with surviving("the comparison of held-out accuracy", folder):
            if isinstance(found, Exception):
                raise found
            if found is not None:
                self._compare(folder, pl_module.scorer, *found)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.readers.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.readers.close()  # Lightning tears down after success only

    def _compare(self, folder: Path, reward: RewardFunction, after: dict[str, float], answered: list[Answered]) -> None:
        assert self.before is not None
        before, shown_before = self.before
        write_atomically(folder / "held_out.json", _as_json(before, after))
        console = Console()
        console.print(_table(before, after))
        with surviving("captions.png", folder):
            shown = answered[: self.sheet_images]
            if shown:
                images = [[open_image(ref) for ref in item.question.images] for item in shown]
                pictures.draw_captions(folder / "captions.png", images, shown, shown_before)
                console.say(f"captions: {folder / 'captions.png'}")
        for line in self.readers.lines(trained_with(reward), before, after):
            console.say(line)
        captions_before = [earlier.caption for earlier in shown_before]
        console.say("\n".join(_last_words(folder, reward, answered, captions_before)))

    def _measure(self, trainer: Trainer, module: RacroModule) -> tuple[dict[str, float], list[Answered]] | Exception:
        """The metrics over all ranks with this rank's answers; or, on every rank, why a rank has none."""
        questions = trainer.datamodule.questions["test"][: self.questions]  # type: ignore[attr-defined]
        metric = module.new_accuracy("test")
        alone = module.new_accuracy("test", audited=False)
        answered: list[Answered] = []
        read: list[PipelineAccuracy] = []
        failure: Exception | None = None
        # Every rank answers its share; the metric adds them up.
        mine = questions[trainer.global_rank :: trainer.world_size]
        with module.sampling():
            try:
                for start in range(0, len(mine), 64):
                    answered += module.answer(mine[start : start + 64])
                    for role in module.roles[1:]:
                        for item in module.answer(mine[start : start + 64], audited=False, role=role):
                            alone.update(item)
                for item in answered:
                    metric.update(item)
                read = self.readers.read(answered, lambda: module.new_accuracy("test", audited=False))
            except Exception as error:  # the other ranks would wait in the sums below
                failure = error
        if all_reduce(torch.tensor(float(failure is not None)), "max"):
            return failure or RacroError("another rank failed; its output says more")
        metrics = metric.compute()
        further = dict(zip(self.readers.names, read, strict=True)) | ({OWN: alone} if len(module.roles) > 1 else {})
        for name, metric in further.items():
            metrics |= {f"{name}: {key}": value for key, value in metric.compute().items() if key != "questions"}
        return metrics, answered


def _last_words(
    folder: Path, reward: RewardFunction, answered: list[Answered], captions_before: list[str]
) -> list[str]:
    """One caption before and after, where training changed one, and the command to type next."""
    pairs = zip(answered, captions_before, strict=False)
    changed = next(((item, before) for item, before in pairs if item.caption != before), None)
    lines = []
    if changed is not None:
        item, before = changed
        question = item.question.text.replace(IMAGE_TAG, "").strip()
        lines = [f"  {name:<9} {shorten(text, 300)}"
                 for name, text in (("question", question), ("before", before), ("after", item.caption))]  # fmt: skip
    own = own_reasoner(reward)
    options = ["--captioner", str(folder), *([] if own is None else ["--reasoner", own])]
    return [*lines, f'next: racro-pl ask IMAGE "QUESTION" {shlex.join(options)}']


def own_reasoner(reward: RewardFunction) -> str | None:
    """The run's reasoner as ``racro-pl ask`` takes it, of several the first; None where it takes none such."""
    scorer = next((each for each in rewards_within(reward) if isinstance(each, Scorer)), None)
    reasoner = None if scorer is None else scorer.reasoner
    if type(reasoner) is InProcessReasoner:
        return reasoner.path
    if type(reasoner) is not HttpReasoner:
        return None
    # `ask` sends no key and names no model; and a server that the run started ends with it.
    needs_more = reasoner.model or reasoner.api_key_env or reasoner.verify or issued_key(reasoner.url)
    return None if needs_more else reasoner.url


def _as_json(before: dict[str, float], after: dict[str, float]) -> str:
    """With null for what nothing was scored for: JSON has no NaN."""
    known = [
        {name: value if math.isfinite(value) else None for name, value in each.items()} for each in (before, after)
    ]
    return json.dumps(dict(zip(("before", "after"), known, strict=True)), indent=2, allow_nan=False) + "\n"


def _table(before: dict[str, float], after: dict[str, float]) -> Table:
    table = Table("held-out", "before", "after")
    for name in after:
        if name != "questions":
            table.add_row(Text(name), percent(before[name]), percent(after[name]))
    return table
