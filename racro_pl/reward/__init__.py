"""Score captions: a frozen reasoner answers from each caption, a grader compares with the gold answer.

Names load on first use, so that ``import racro_pl.reward`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from racro_pl.lazy import lazy_names

if TYPE_CHECKING:
    from racro_pl.reward.cache import ReplyCache as ReplyCache
    from racro_pl.reward.caption_penalty import CaptionJudge as CaptionJudge
    from racro_pl.reward.caption_penalty import CaptionPenalty as CaptionPenalty
    from racro_pl.reward.caption_penalty import ReasonerJudge as ReasonerJudge
    from racro_pl.reward.caption_penalty import RuleJudge as RuleJudge
    from racro_pl.reward.described_answer import DescribedAnswers as DescribedAnswers
    from racro_pl.reward.function import FunctionReward as FunctionReward
    from racro_pl.reward.gain import GainScorer as GainScorer
    from racro_pl.reward.grader import Grader as Grader
    from racro_pl.reward.http import HttpReasoner as HttpReasoner
    from racro_pl.reward.in_process import InProcessReasoner as InProcessReasoner
    from racro_pl.reward.own_answer import OwnAnswers as OwnAnswers
    from racro_pl.reward.pool import ReasonerPool as ReasonerPool
    from racro_pl.reward.reasoner import Reasoner as Reasoner
    from racro_pl.reward.reasoner import ReasonerError as ReasonerError
    from racro_pl.reward.reasoner import Reply as Reply
    from racro_pl.reward.reward_function import RewardFunction as RewardFunction
    from racro_pl.reward.reward_function import RewardFuture as RewardFuture
    from racro_pl.reward.scorer import Scorer as Scorer
    from racro_pl.reward.several import SeveralReasoners as SeveralReasoners
    from racro_pl.reward.several_questions import SeveralQuestions as SeveralQuestions
    from racro_pl.reward.unscored import UnscoredError as UnscoredError

_MODULES = {
    f"{__name__}.caption_penalty": "CaptionJudge CaptionPenalty ReasonerJudge RuleJudge",
    f"{__name__}.described_answer": "DescribedAnswers",
    f"{__name__}.function": "FunctionReward",
    f"{__name__}.gain": "GainScorer",
    f"{__name__}.grader": "Grader",
    f"{__name__}.http": "HttpReasoner",
    f"{__name__}.in_process": "InProcessReasoner",
    f"{__name__}.own_answer": "OwnAnswers",
    f"{__name__}.reasoner": "Reasoner ReasonerError Reply",
    f"{__name__}.pool": "ReasonerPool",
    f"{__name__}.cache": "ReplyCache",
    f"{__name__}.reward_function": "RewardFunction RewardFuture",
    f"{__name__}.scorer": "Scorer",
    f"{__name__}.several": "SeveralReasoners",
    f"{__name__}.several_questions": "SeveralQuestions",
    f"{__name__}.unscored": "UnscoredError",
}
__all__ = [name for names in _MODULES.values() for name in names.split()]
__getattr__ = lazy_names(__name__, _MODULES)
