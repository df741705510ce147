"""Score captions: a frozen reasoner answers from each caption, a grader compares with the gold answer.

Names load on first use, so that ``import racro_pl.reward`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from racro_pl.reward.cache import ReplyCache
    from racro_pl.reward.caption_penalty import CaptionJudge, CaptionPenalty, ReasonerJudge, RuleJudge
    from racro_pl.reward.function import FunctionReward
    from racro_pl.reward.gain import GainScorer
    from racro_pl.reward.grader import Grader
    from racro_pl.reward.http import HttpReasoner
    from racro_pl.reward.in_process import InProcessReasoner
    from racro_pl.reward.own_answer import OwnAnswers
    from racro_pl.reward.pool import ReasonerPool
    from racro_pl.reward.reasoner import Reasoner, ReasonerError, Reply
    from racro_pl.reward.reward_function import RewardFunction, RewardFuture
    from racro_pl.reward.scorer import Scorer
    from racro_pl.reward.several import SeveralReasoners
    from racro_pl.reward.unscored import UnscoredError

_HOMES = {
    "CaptionJudge": "caption_penalty",
    "CaptionPenalty": "caption_penalty",
    "FunctionReward": "function",
    "GainScorer": "gain",
    "Grader": "grader",
    "HttpReasoner": "http",
    "InProcessReasoner": "in_process",
    "OwnAnswers": "own_answer",
    "Reasoner": "reasoner",
    "ReasonerError": "reasoner",
    "ReasonerJudge": "caption_penalty",
    "ReasonerPool": "pool",
    "Reply": "reasoner",
    "ReplyCache": "cache",
    "RewardFunction": "reward_function",
    "RewardFuture": "reward_function",
    "RuleJudge": "caption_penalty",
    "Scorer": "scorer",
    "SeveralReasoners": "several",
    "UnscoredError": "unscored",
}

__all__ = [
    "CaptionJudge",
    "CaptionPenalty",
    "FunctionReward",
    "GainScorer",
    "Grader",
    "HttpReasoner",
    "InProcessReasoner",
    "OwnAnswers",
    "Reasoner",
    "ReasonerError",
    "ReasonerJudge",
    "ReasonerPool",
    "Reply",
    "ReplyCache",
    "RewardFunction",
    "RewardFuture",
    "RuleJudge",
    "Scorer",
    "SeveralReasoners",
    "UnscoredError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
