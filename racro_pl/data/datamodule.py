"""From a reader to batches of questions: what is unusable or too long is dropped and said, the rest comes in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from racro_pl.data.benchmarks.loading import BenchmarkSettings, LoadedBenchmark, load_benchmarks, parse_benchmark
from racro_pl.data.curriculum import Curriculum
from racro_pl.data.readers.base import Drops, Reader, RowError, Split, tracked
from racro_pl.data.readers.ids import check_unique
from racro_pl.data.same_images import with_pools
from racro_pl.data.sampling import PLAIN, QuestionSampler, ResumableLoader, in_order, place_of
from racro_pl.images import ImageError
from racro_pl.text.captioner_prompt import PromptError
from racro_pl.text.printable import printable
from racro_pl.types import Question, RacroError, at_least, require_all


class RacroDataModule(LightningDataModule):
    """Questions of one data set, split by split. A batch is a list of ``Question``; images stay references.

    Args:
        reader: the data set.
        questions_per_step: B, questions per step over all ranks together.
        eval_batch_size: questions per validation batch, per rank.
        max_prompt_tokens: drop questions whose prompt, image tokens counted, is longer; nothing is ever cut.
        seed: seeds the order of the training questions.
        curriculum: which training questions come how often; null: each once an epoch, shuffled.
        validation: benchmarks to validate on beside the validation split: names or ``NAME=PATH``, as ``racro-pl test``
            takes them (docs/evaluation.md).
        validation_limit: at most so many questions of each, the first; groups (DynaMath's seeds, WeMath's problems)
            whole. null: all.
    """

    def __init__(
        self,
        reader: Reader,
        questions_per_step: int = 256,
        eval_batch_size: int = 64,
        max_prompt_tokens: int = 8192,
        seed: int = 1,
        curriculum: Curriculum | None = None,
        validation: list[str | BenchmarkSettings] | None = None,
        validation_limit: int | None = None,
    ) -> None:
        super().__init__()
        sizes = {"questions_per_step": questions_per_step, "eval_batch_size": eval_batch_size}
        require_all("data", *at_least(1, **sizes, max_prompt_tokens=max_prompt_tokens))
        self.reader = reader
        self.questions_per_step = questions_per_step
        self.eval_batch_size = eval_batch_size
        self.max_prompt_tokens = max_prompt_tokens
        self.seed = seed
        self.curriculum = curriculum
        self.validation = [parse_benchmark(entry) for entry in validation or []]
        self.validation_limit = validation_limit
        self._benchmarks: list[LoadedBenchmark] | None = None
        self._solved: set[str] = set()
        """Ids of training questions all of whose captions were right when they last came."""
        self._solved_before: tuple[int, frozenset[str]] = (-1, frozenset())
        """The epoch under way, and what was solved when it began: later news is for the next."""
        self.questions: Mapping[Split, list[Question]] = _Splits(self)
        """Usable questions by split; a split is read when it is first asked for, and kept."""
        self.longest: dict[Split, Question] = {}
        """Of each split read, the question with the longest prompt; only where prompts are counted."""

    # ------------------------------------------------------------------ Lightning's hooks

    def setup(self, stage: str) -> None:
        """Read what the stage needs now, so that bad data stops the run before any model is loaded.

        Raises:
            RacroError: no usable question, or not enough for one step.
        """
        if stage == "fit":
            self._check_step()
            if not self.validation_sets:
                rank_zero_info("data: no validation questions; the run will not validate")
        elif stage == "validate" and not self.validation_sets:
            self._require("validation")

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled anew each epoch; an epoch's last, smaller batch is left out."""
        rank, ranks = place_of(self.trainer)
        questions = self.questions["train"]
        return ResumableLoader(
            questions,  # type: ignore[arg-type]
            batch_size=self.questions_per_step // ranks,
            sampler=QuestionSampler(len(questions), self.seed, rank, ranks, self._order if self.curriculum else None),
            drop_last=True,
            **PLAIN,
            generator=torch.Generator(),
        )

    @property
    def validation_sets(self) -> list[LoadedBenchmark | None]:
        """What each validation loader holds: None for the validation split where there is one, then the benchmarks.

        Raises:
            RacroError: a benchmark is not found or empty, or there twice.
        """
        if self._benchmarks is None:
            self._benchmarks = self._load_benchmarks()
        return [*([None] if self.questions["validation"] else []), *self._benchmarks]

    def val_dataloader(self) -> list[DataLoader]:
        """In order, nothing left out: the validation split, then every benchmark; those that are there."""
        sets = [self.questions["validation"] if loaded is None else loaded.questions for loaded in self.validation_sets]
        return [in_order(questions, self.eval_batch_size, place_of(self.trainer)) for questions in sets]

    def state_dict(self) -> dict[str, Any]:
        """What is solved, and what makes the order of the questions, for the checkpoint."""
        epoch, before = self._solved_before
        solved = {"solved": sorted(self._solved), "epoch": epoch, "solved_before": sorted(before)}
        return solved | {"order": self._makes_order()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume with what was solved.

        Raises:
            RacroError: the order of the questions would be another one.
        """
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._check_order(state_dict.get("order", {}))
        self._solved = set(state_dict["solved"])
        self._solved_before = (state_dict["epoch"], frozenset(state_dict["solved_before"]))

    def _makes_order(self) -> dict[str, Any]:
        """All that the order of the training questions follows from; the position in an epoch counts in it."""
        questions = hashlib.sha256()
        for question in self.questions["train"]:
            questions.update(json.dumps([question.id, question.text, question.answer]).encode())
        return {
            "questions_per_step": self.questions_per_step,
            "seed": self.seed,
            "curriculum": None if self.curriculum is None else asdict(self.curriculum),
            "training questions": questions.hexdigest(),
        }

    def _check_order(self, before: Mapping[str, Any]) -> None:
        now = self._makes_order()
        changed = [name for name, value in before.items() if now[name] != value]
        if not changed:
            return
        listed = [
            "the training questions are other ones (data.reader, data.max_prompt_tokens)"
            if name == "training questions"
            else f"data.{name} is {now[name]} (was {before[name]})"
            for name in changed
        ]
        raise RacroError(
            f"the checkpoint's position in the epoch would stand for other questions: {'; '.join(listed)}. Resume with "
            "what was there before, or begin a new run, with policy.adapter set to this checkpoint"
        )

    # ------------------------------------------------------------------ what the module asks

    def note_solved(self, results: Mapping[str, bool]) -> None:
        """Take in whether questions, by id, were solved in a step; on all ranks the questions of all ranks."""
        for name, solved in results.items():
            (self._solved.add if solved else self._solved.discard)(name)

    def _order(self, epoch: int, generator: torch.Generator) -> list[int]:
        assert self.curriculum is not None
        if self._solved_before[0] != epoch:
            self._solved_before = (epoch, frozenset(self._solved))
        return self.curriculum.order(self.questions["train"], self._solved_before[1], epoch, generator)

    def categories(self, split: Split) -> list[str]:
        """Every question type of a split, sorted."""
        return sorted({question.category for question in self.questions[split]})

    def audit_names(self) -> tuple[str, ...]:
        """Names of the figures of :meth:`audit_caption`."""
        return self.reader.audit_names()

    def audit_caption(self, question: Question, caption: str) -> Mapping[str, float]:
        """What the data set itself knows about a caption."""
        return self.reader.audit_caption(question, caption)

    # ------------------------------------------------------------------ inside

    def load(self, split: Split) -> list[Question]:
        """Read a split anew, drop what is unusable or too long, and say what was dropped and why.

        Raises:
            RacroError: the split had rows, and none of them can be used; or two questions have one id.
        """
        result = self.reader.read(split)
        check_unique(f"data: {split}", result.questions)
        drops = Drops()
        questions = result.questions
        if split == "train" and self.curriculum is not None:
            questions = self.curriculum.select(questions, drops)
        questions = self._short_enough(split, questions, drops)
        if split == "train":
            questions = with_pools(questions)
        dropped = result.dropped + drops.counts
        reasons = printable(", ".join(f"{reason} {count}" for reason, count in dropped.most_common()))
        if dropped and not questions:
            raise RacroError(
                f"data: none of the {dropped.total()} {split} rows can be used ({reasons}); the warnings above name "
                "the first of them. Check the data file, the image folder and data.max_prompt_tokens"
            )
        if questions:
            rank_zero_info(
                f"data: {split} {len(questions)} kept, {dropped.total()} dropped{': ' if reasons else ''}{reasons}"
            )
        return questions

    def _load_benchmarks(self) -> list[LoadedBenchmark]:
        loaded = load_benchmarks(self.validation, self.validation_limit)
        for place, each in enumerate(loaded):
            drops = Drops()
            questions = self._short_enough(None, each.questions, drops)
            if not questions:
                raise RacroError(f"data.validation: no question of {each.name} can be asked ({dict(drops.counts)})")
            loaded[place] = replace(each, questions=questions, dropped=each.dropped + drops.counts)
            rank_zero_info(f"data: validation on {printable(str(loaded[place]))}")
        return loaded

    def _short_enough(self, split: Split | None, questions: list[Question], drops: Drops) -> list[Question]:
        module = self.trainer.lightning_module if self.trainer is not None else None
        count_tokens = getattr(module, "count_prompt_tokens", None)
        if count_tokens is None:
            return questions
        kept = []
        longest = 0
        for question in tracked(questions, "counting prompt tokens", len(questions)):
            try:
                tokens = count_tokens(question)
                if tokens > self.max_prompt_tokens:
                    raise RowError("prompt too long", f"{tokens} tokens, the limit is {self.max_prompt_tokens}")
                kept.append(question)
                if split is not None and tokens > longest:
                    longest, self.longest[split] = tokens, question
            except RowError as error:
                drops.add(f"question {question.id}", error)
            except (PromptError, ImageError) as error:
                drops.add(f"question {question.id}", RowError("prompt cannot be built", str(error)))
        return kept

    def _require(self, split: Split) -> list[Question]:
        if not self.questions[split]:
            raise RacroError(
                f"data: {type(self.reader).__name__} has no {split} questions; expected at least one. Name a file "
                f"or a share for the {split} split, or use another command"
            )
        return self.questions[split]

    def _check_step(self) -> None:
        count = len(self._require("train"))
        if count < self.questions_per_step:
            raise RacroError(
                f"data: {count} train questions are fewer than one step's {self.questions_per_step}; lower "
                "data.questions_per_step or add questions"
            )
        ranks = place_of(self.trainer)[1]
        if self.questions_per_step % ranks:
            raise RacroError(
                f"data.questions_per_step is {self.questions_per_step}, which {ranks} ranks cannot share evenly; "
                f"use a multiple of {ranks}"
            )


class _Splits(dict[Split, list[Question]]):
    """Loads a split when it is first asked for."""

    def __init__(self, data: RacroDataModule) -> None:
        super().__init__()
        self.data = data

    def __missing__(self, split: Split) -> list[Question]:
        self[split] = self.data.load(split)
        return self[split]
