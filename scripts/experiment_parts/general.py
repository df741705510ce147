"""Do captions serve another question about the same picture? The reckoning world's 500 test questions."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

from experiment_parts.described import READERS, written
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.reckoning_world.world import ASKED, audit_caption, may_be_asked, question_text, work_out
from racro_pl.reward import InProcessReasoner, Scorer
from racro_pl.text.captioner_prompt import captioner_messages
from racro_pl.types import Question

LONGEST = 13
"""Tokens of a caption, as in training."""
OTHER = "another question"
"""In the names of figures."""


def another_question(question: Question, rng: random.Random) -> Question:
    """A question about the same picture with another text: first its type is drawn, then the colours."""
    dots = question.metadata["dots"]
    while True:
        kind = rng.choice(tuple(ASKED))
        colors = rng.choice(list(permutations(sorted(dots), ASKED[kind])))
        counts = [dots[color] for color in colors]
        text = question_text(kind, colors)
        if may_be_asked(kind, counts) and text != question.text:
            answer = work_out(kind, colors, counts)
            told = {**question.metadata, "colors": colors}
            return replace(question, text=text, answer=answer, category=kind, metadata=told)


def evaluate_general(adapter: str | None) -> dict[str, float]:
    """Greedy captions of a captioner with an adapter, or as it comes.

    Returns:
        Accuracy of each reasoner on the question that a caption was written for, and, after its name, on
        :data:`OTHER`; the share of ``true_sentences``.
    """
    questions = find_benchmark("reckoning").read().questions
    others = [another_question(question, random.Random(place)) for place, question in enumerate(questions)]
    captions = written(adapter, questions, captioner_messages, LONGEST)
    found = {}
    for name in READERS:
        scorer = Scorer(InProcessReasoner(f"embedded:{name}", temperature=0.0, max_new_tokens=22), cache="off")
        for key, asked in {name: questions, f"{name}, {OTHER}": others}.items():
            waiting = [scorer.submit(one, [caption]) for one, caption in zip(asked, captions, strict=True)]
            found[key] = sum(rewards.result().total[0] for rewards in waiting) / len(questions)
        scorer.close()
    audits = [audit_caption(question, caption) for question, caption in zip(questions, captions, strict=True)]
    found["true_sentences"] = sum(audit.true_sentences for audit in audits) / sum(audit.sentences for audit in audits)
    return found
