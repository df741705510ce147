"""Captions without a score: counting the reasons, and what to do about each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from racro_pl.reward.http_session import SERVER_DOWN, WRONG_MODEL
from racro_pl.serving.chat_client import BAD_CERTIFICATE, CONNECTION_FAILED, TIMEOUT
from racro_pl.serving.replies import FILTERED, NO_ANSWER, PROMPT_CUT
from racro_pl.types import RacroError

GRADING_TIMED_OUT = "grading timed out"
OTHER_ADVICE = "check that the reasoner is up and answers within its deadline"
ADVICE = (
    (TIMEOUT, "look whether the reasoner's server hangs (its log says); if it is only slow, raise deadline_s and "
              "attempt_s, or lower concurrency or max_tokens"),
    ((CONNECTION_FAILED, SERVER_DOWN), "start the reasoner's server again"),
    (WRONG_MODEL, "serve the model with which the run began, or begin a new run"),
    (NO_ANSWER, "a thinking model: serve it with the reasoning parser of its family, raise max_tokens, or switch "
                "thinking off in the reasoner's extra_body"),
    (PROMPT_CUT, "give the reasoner's server a longer context (Ollama: OLLAMA_CONTEXT_LENGTH)"),
    (FILTERED, "the reasoner's service withholds answers to these prompts: use another one"),
    (BAD_CERTIFICATE, "set the reasoner's verify to the certificates of its authority"),
    ("bad response", "look whether the reasoner's own server is what answers at its url"),
    ("HTTP 429", "lower the reasoner's concurrency, or raise its deadline_s and attempts"),
    (("HTTP 401", "HTTP 403"), "check the key that the reasoner's api_key_env names"),
    ("HTTP 3", "set the reasoner's url to the server's own address"),
    ("HTTP 5", "look into the log of the reasoner's server"),
    ("HTTP 4", "look into the log of the reasoner's server: it refuses the prompts (too long for its context?)"),
    (GRADING_TIMED_OUT, "raise grade_limit_s"),
)  # fmt: skip
"""What to do about a kind of reason, by how it begins; the first that fits holds."""


class UnscoredError(RacroError):
    """Too many captions have no score for training to continue."""

    @classmethod
    def build(cls, reasons: Sequence[str | None], limit: float) -> UnscoredError:
        """The error for captions with these ``Rewards.reasons``, not all of them None, of which a share is allowed.

        The message counts each kind and quotes the commonest.
        """
        kinds = count_reasons(reasons).most_common()
        commonest = kinds[0][0]
        example = Counter(reason for reason in reasons if reason and _kind(reason) == commonest).most_common(1)[0][0]
        advice = next((text for start, text in ADVICE if commonest.startswith(start)), OTHER_ADVICE)
        return cls(
            f"{sum(count for _, count in kinds)} of {len(reasons)} captions have no score, more than the allowed share "
            f"of {limit:g} (max_unscored_share): {', '.join(f'{count}x {kind}' for kind, count in kinds)}. "
            f"For example: {example}. What to do: {advice}; then resume from the last checkpoint"
        )


def count_reasons(reasons: Sequence[str | None]) -> Counter[str]:
    """How often each kind of reason occurs; the part after its colon does not count."""
    return Counter(_kind(reason) for reason in reasons if reason is not None)


def _kind(reason: str) -> str:
    return reason.split(":", 1)[0]
