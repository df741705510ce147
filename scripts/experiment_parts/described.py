"""Captioners that describe and then answer, on the reckoning world's 500 test questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from experiment_parts.habit import PIXELS
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.figure_world.models import resolve_model
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.policy.prompts import PromptTemplate
from racro_pl.reckoning_world.world import audit_caption
from racro_pl.reward import InProcessReasoner, OwnAnswers, Scorer
from racro_pl.reward.described_answer import description_of
from racro_pl.text.captioner_prompt import tentative_messages
from racro_pl.types import Question

READERS = ("reckoning-weak", "reckoning-strong")
"""Who reads the descriptions: the reasoner of training, and one that it never met."""
LONGEST = 18
"""Tokens of a text: three sentences, the box, and the end."""


def evaluate_described(adapter: str) -> dict[str, float]:
    """Greedy texts of a captioner with an adapter.

    Returns:
        Accuracy of its own answers (``direct``) and of each reasoner that reads the descriptions; the shares of
        descriptions that state every count that is needed (``asked_counts_stated``) and of ``true_sentences``.
    """
    questions = find_benchmark("reckoning").read().questions
    texts = written(adapter, questions, tentative_messages, LONGEST)
    told = [description_of(text) for text in texts]
    own = OwnAnswers()
    pairs = list(zip(questions, texts, strict=True))
    found = {"direct": _mean([own.grade(question, [text]).total[0] for question, text in pairs])}
    own.close()
    for name in READERS:
        scorer = Scorer(InProcessReasoner(f"embedded:{name}", temperature=0.0, max_new_tokens=22), cache="off")
        waiting = [scorer.submit(question, [text]) for question, text in zip(questions, told, strict=True)]
        found[name] = _mean([rewards.result().total[0] for rewards in waiting])
        scorer.close()
    audits = [audit_caption(question, text) for question, text in zip(questions, told, strict=True)]
    found["asked_counts_stated"] = _mean([audit.asked_stated for audit in audits])
    found["true_sentences"] = sum(audit.true_sentences for audit in audits) / sum(audit.sentences for audit in audits)
    return found


def written(adapter: str | None, questions: Sequence[Question], template: PromptTemplate, longest: int) -> list[str]:
    """Greedy texts of the reckoning world's captioner.

    Args:
        adapter: a run's folder, or an adapter's; None for the captioner as it comes.
        questions: what to ask about.
        template: what to ask for.
        longest: tokens of a text.
    """
    settings = PolicySettings(
        path=resolve_model("embedded:reckoning-captioner"), adapter=adapter, dtype="float32",
        gradient_checkpointing=False, min_pixels=PIXELS, max_pixels=PIXELS,
    )  # fmt: skip
    captioner = load_captioner(settings, torch.device("cpu")).eval()
    texts: list[str] = []
    for start in range(0, len(questions), 100):
        prompts = [captioner.encode(question, template) for question in questions[start : start + 100]]
        texts += captioner.generate(prompts, 1, longest, None).texts
    return texts


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares)
