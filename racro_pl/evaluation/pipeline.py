"""The evaluation: captions and tentative answers, reasoners' answers, verdicts. Every text is on disk once it is there.

Ranks share the questions out by their place in the list, write files of their own and never wait for each other before
the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from racro_pl.data.benchmarks.loading import LoadedBenchmark, refuse_doubles
from racro_pl.evaluation.asking import ask_all
from racro_pl.evaluation.headlines import find_headline
from racro_pl.evaluation.outcomes import Mode
from racro_pl.evaluation.progress import stage
from racro_pl.evaluation.results import System
from racro_pl.evaluation.settings import CaptionerSettings, Plan, ReasonerSettings, short_name
from racro_pl.evaluation.store import Store
from racro_pl.evaluation.writers import Task, Writer, open_writer
from racro_pl.terminal import Console
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages
from racro_pl.text.thoughts import without_thoughts
from racro_pl.types import Messages, Question

if TYPE_CHECKING:
    import torch

TASKS: dict[Mode, tuple[Task, ...]] = {
    "direct": ("tentative",),
    "caption": ("caption",),
    "caption+tentative": ("caption", "tentative"),
}
"""The captioner's texts that each mode needs."""
WINDOW = 256
"""Prompts that wait for a reasoner at once."""


@dataclass(frozen=True)
class Place:
    """This process among those that share the work."""

    device: torch.device
    rank: int = 0
    ranks: int = 1


def check_rules(plan: Plan) -> None:
    """Refuse a benchmark that does not have the plan's rule, before anything is read.

    Raises:
        RacroError: names the benchmark and its rules.
    """
    for entry in plan.benchmarks:
        find_headline(entry.benchmark).rule(plan.rule)


def check_parts(plan: Plan, device: torch.device) -> None:
    """Find out before hours of work that a captioner or reasoner cannot be used; name servers' models as served.

    Raises:
        RacroError: one cannot be used, or two have one name.
    """
    for captioner in plan.captioners:
        writer = open_writer(captioner, device)
        try:
            writer.probe()
        finally:
            writer.close()
    for entry in plan.reasoners:
        try:
            entry.reasoner.check()
        finally:
            entry.reasoner.close()  # an in-process one would take the captioner's memory
        entry.name = entry.name or short_name(getattr(entry.reasoner, "model", None) or type(entry.reasoner).__name__)
    refuse_doubles("reasoners", [entry.name for entry in plan.reasoners])


class Evaluation:
    """Generates what an evaluation needs and does not have yet.

    Args:
        plan: what is asked for.
        benchmarks: with their questions.
        folder: the run's folder; ``captions*.jsonl`` and ``answers*.jsonl`` live there.
        place: this process among those that share the work.
        console: where to speak; only the first process does.
    """

    def __init__(
        self,
        plan: Plan,
        benchmarks: list[LoadedBenchmark],
        folder: Path,
        place: Place,
        console: Console,
    ) -> None:
        self.plan = plan
        self.benchmarks = benchmarks
        self.folder = folder
        self.place = place
        self.console = console
        self.problems: Counter[str] = Counter()
        self.captions = Store(folder, "captions", ("benchmark", "id", "captioner", "task"), place.rank)
        answer_key = ("benchmark", "id", "captioner", "mode", "reasoner", "sample")
        self.answers = Store(folder, "answers", answer_key, place.rank)

    def systems(self) -> list[System]:
        """Every row of the table: captioner by captioner, its own answers first."""
        systems = []
        for captioner in self.plan.captioners:
            if "direct" in self.plan.modes:
                systems.append(System(captioner.name, "direct", None))
            for reasoner in self.plan.reasoners:
                modes = [mode for mode in self.plan.modes if mode != "direct"]
                systems += [System(captioner.name, mode, reasoner.name) for mode in modes]
        return systems

    def ask_reasoners(self) -> None:
        """All answers, once the captions are there; what failed is counted in ``problems`` and can be asked again."""
        for reasoner in self.plan.reasoners:
            self._ask(reasoner)

    def close(self) -> None:
        """Have the disk hold everything."""
        self.captions.close()
        self.answers.close()

    def mine(self) -> Iterator[tuple[LoadedBenchmark, Question]]:
        """This process's share of the questions: the one that ``BenchmarkDataModule`` gives it, and that it scores."""
        for loaded in self.benchmarks:
            for question in loaded.questions[self.place.rank :: self.place.ranks]:
                yield loaded, question

    def _ask(self, entry: ReasonerSettings) -> None:
        modes = [mode for mode in self.plan.modes if mode != "direct"]
        work = [
            (question, captioner.name, mode, sample)
            for captioner in self.plan.captioners
            for mode in modes
            for loaded, question in self.mine()
            for sample in range(self.plan.samples)
            if (loaded.name, question.id, captioner.name, mode, entry.name, sample) not in self.answers
            and all(self.text(question, captioner.name, task) is not None for task in TASKS[mode])
        ]
        if not work:
            return
        prompts = (((question, name, mode, sample), self._prompt(question, name, mode))
                   for question, name, mode, sample in work)  # fmt: skip
        try:
            with stage(f"{entry.name}: answers", len(work), self.place.rank == 0) as advance:
                for (question, name, mode, sample), reply in ask_all(entry.reasoner, prompts, WINDOW):
                    advance()
                    if reply.text is None:
                        self.note_problem(entry.name, question, reply.error or "no answer")
                        continue
                    self.answers.append(
                        {"benchmark": question.source, "id": question.id, "captioner": name, "mode": mode,
                         "reasoner": entry.name, "sample": sample, "text": reply.text}
                    )  # fmt: skip
        finally:
            entry.reasoner.close()

    def _prompt(self, question: Question, captioner: str, mode: Mode) -> Messages:
        # Written thoughts and all by an earlier version, in a folder that is taken up again?
        caption = without_thoughts(self.text(question, captioner, "caption") or "")
        if mode == "caption":
            return reasoner_messages(question.text, caption)
        tentative = without_thoughts(self.text(question, captioner, "tentative") or "")
        return joint_messages(question.text, caption, tentative)

    def text(self, question: Question, captioner: str, task: Task) -> str | None:
        """A captioner's text; None while there is none."""
        record = self.captions.get((question.source, question.id, captioner, task))
        return None if record is None else record["text"]

    def responses(self, question: Question, system: System) -> list[str]:
        """What a system answered a question, one text per sample that came back."""
        if system.mode == "direct":
            text = self.text(question, system.captioner, "tentative")
            return [] if text is None else [text]
        key = (question.source, question.id, system.captioner, system.mode, system.reasoner)
        records = [self.answers.get((*key, sample)) for sample in range(self.plan.samples)]
        return [record["text"] for record in records if record is not None]

    def note_problem(self, who: str, question: Question, error: str) -> None:
        """Count a text that did not come; the first few of a kind are told."""
        kind = f"{who}: {error.split(':', 1)[0]}"
        self.problems[kind] += 1
        if self.problems[kind] <= 3:
            self.console.print(f"{who}: {question.source} {question.id}: {error}", markup=False, soft_wrap=True)


class BenchmarkCaptions:
    """The captions and tentative answers of one captioner that an evaluation needs and does not have yet."""

    def __init__(self, evaluation: Evaluation, captioner: CaptionerSettings) -> None:
        self._evaluation = evaluation
        self._captioner = captioner
        self._tasks = sorted({task for mode in evaluation.plan.modes for task in TASKS[mode]})
        self.title = f"{captioner.name}: {' and '.join(self._tasks)}"
        self._written = self._only_thoughts = 0

    def left(self) -> int:
        return len(self._missing(question for _, question in self._evaluation.mine()))

    def write(self, items: Sequence[Question], writer: Writer) -> Iterator[None]:
        """Write what a batch of questions has not yet."""
        name, work = self._captioner.name, self._missing(items)
        for written in writer.write(work) if work else ():
            if written.error is not None:
                self._evaluation.note_problem(name, written.question, written.error)
            else:
                self._written += 1
                self._only_thoughts += written.only_thoughts
                thoughts = {"thoughts": written.thoughts} if written.thoughts else {}
                self._evaluation.captions.append(
                    {"benchmark": written.question.source, "id": written.question.id, "captioner": name,
                     "task": written.task, "text": written.text, "truncated": written.truncated} | thoughts
                )  # fmt: skip
            yield

    def end(self) -> None:
        """Say what is odd about the texts."""
        if self._only_thoughts:
            self._evaluation.console.print(
                f"{self._captioner.name}: {self._only_thoughts} of {self._written} texts are nothing but thoughts and "
                f"count as empty; raise max_new_tokens (now {self._captioner.max_new_tokens})",
                markup=False, soft_wrap=True,
            )  # fmt: skip

    def _missing(self, questions: Iterable[Question]) -> list[tuple[Question, Task]]:
        return [
            (question, task)
            for question in questions
            for task in self._tasks
            if (question.source, question.id, self._captioner.name, task) not in self._evaluation.captions
        ]
