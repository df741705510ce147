"""WeMath: problems of two or three steps, asked whole and step by step. Qiao et al. 2024, https://we-math.github.io."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from racro_pl.data.benchmarks.base import SplitInfo
from racro_pl.data.benchmarks.mmmu import lettered_options
from racro_pl.data.benchmarks.prompts import multiple_choice_text
from racro_pl.data.benchmarks.sources.rows import Row
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.fields import typed_answer
from racro_pl.text.choices import LETTERS
from racro_pl.types import Question

KEYS = {
    "2": ("2steps_1", "2steps_2", "2steps_multi"),
    "3": ("3steps_1", "3steps_2", "3steps_3", "3steps_multi"),
}
"""Rows of a problem, by its number of steps: one per step, and the whole of it."""
_OPTION = re.compile(r"(?:^|[;；\n])\s*([A-H])\s*[.:：、．)]\s*")


class WeMath(TableBenchmark):
    """Ids are ``ID-key``: the problem, and the part of it that the row asks."""

    name = "wemath"
    title = "WeMath"
    splits = {"testmini": SplitInfo(1740, "WeMath", "b5e969a075f01290a542411fb7766388")}
    hub_id = "We-Math/We-Math"
    breakdowns = {"steps": "category"}
    """S1, S2 and S3 of the paper."""
    needs = (("ID",), ("key",), ("question",), ("option", "A"), ("answer",))
    files = {"testmini": ("testmini.json", "data/testmini.json")}

    def question(self, row: Row) -> Question:
        """A row of any layout."""
        problem, key = row.text("ID"), row.text("key")
        if not problem or key not in KEYS.get(key[:1], ()):
            raise RowError("unknown part", f"{key!r:.30} of {problem!r:.30}; expected 2steps_1 ... 3steps_multi")
        question = row.text("question")
        if not question:
            raise RowError("no question")
        options = lettered_options(row) or _split_options(row.text("option"))
        answer, answer_type = typed_answer(row.text("answer"), "", options, "choice")
        return Question(
            id=f"{problem}-{key}",
            images=row.images,
            text=multiple_choice_text(question, options, row.text("hint")),
            answer=answer,
            answer_type=answer_type,
            choices=options,
            source=self.name,
            category=f"S{key[0]}" if key.endswith("multi") else "S1",
            metadata={"group": problem, "key": key},
        )

    def group(self, question: Question) -> str:
        """The problem."""
        return str(question.metadata["group"])

    def incomplete(self, questions: Sequence[Question]) -> list[str]:
        """Problems that lack a step or the whole."""
        keys: dict[str, list[str]] = defaultdict(list)
        for question in questions:
            keys[self.group(question)].append(question.metadata["key"])
        return [name for name, found in keys.items() if not is_complete(found)]


def is_complete(keys: Sequence[str]) -> bool:
    """Whether these are all the rows of one problem, each once."""
    return sorted(keys) in (sorted(KEYS["2"]), sorted(KEYS["3"]))


def _split_options(text: str) -> tuple[str, ...]:
    """Options out of one text: ``A. 3; B. 4``. A letter out of turn belongs to the option before it."""
    starts: list[re.Match[str]] = []
    for match in _OPTION.finditer(text):
        if match[1] == LETTERS[len(starts)]:
            starts.append(match)
    # Each option ends where the next begins, the last with the text.
    ends = [*(match.start() for match in starts), len(text)][1:]
    options = tuple(text[match.end() : end].strip(" ;；\n") for match, end in zip(starts, ends, strict=True))
    if len(options) < 2 or not all(options):
        raise RowError("options cannot be read", f"{text!r:.60}; expected 'A. ...; B. ...'")
    return options
