"""What an objective's name stands for: how questions are asked, and who rewards what is written.

=========  ==========================================  ===========================================================
name       the captioner is asked for                  reward
=========  ==========================================  ===========================================================
``cro``    a caption (the paper's stage)               1 when the frozen reasoner answers right from it
``vpo``    a caption                                   the same, less a penalty when what helped was no caption
``qa``     its own answer, step by step, in a box      1 when the box holds the gold answer; no reasoner is asked
                                                       (by ``DescribedAnswers``: also for what stands before it)
``joint``  both, each in a group of its own            captions as in cro, answers as in qa
=========  ==========================================  ===========================================================

The training step is the same for all: it samples texts, gets their rewards, and learns. So are the numbers it
reports; an accuracy of ``qa`` is that of the captioner's own answers. ``joint`` minimises the loss of cro plus
``answer_weight`` times the loss of qa, each a mean over its own tokens, and reports both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from racro_pl.policy.captioner import Captioner
from racro_pl.reward.caption_penalty import CaptionJudge, CaptionPenalty, ReasonerJudge, RuleJudge, Verdicts
from racro_pl.reward.described_answer import DescribedAnswers
from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.reward.reward_function import RewardFunction, rewards_within
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.several_questions import SeveralQuestions
from racro_pl.text.caption_judge import judge_messages
from racro_pl.text.captioner_prompt import PromptError
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.training.strategy import ShardedStrategy
from racro_pl.types import Question, RacroError


def reward_function(
    objective: ObjectiveSettings, reward: RewardFunction | None, captioner: Callable[[], Captioner]
) -> RewardFunction:
    """What rewards the sampled texts of the objective's first role.

    Args:
        captioner: gives the policy, which is built later than this.

    Raises:
        RacroError: the objective needs a reasoner and there is none, or the reward is of another objective.
    """
    if objective.name == "qa":
        if isinstance(reward, DescribedAnswers):
            return reward
        if reward is not None:
            rank_zero_info("objective qa: the captioner answers by itself; nothing of model.reward is used")
        return OwnAnswers()
    if reward is None:
        raise RacroError(
            f"model.reward is empty, and objective {objective.name} learns from a reasoner's answers: name one in "
            "model.reward.reasoner, or train with objective.name: qa"
        )
    if any(isinstance(part, DescribedAnswers) for part in rewards_within(reward)):
        raise RacroError(
            "model.reward is or holds DescribedAnswers, which pays for answers and for what is said before them, and "
            f"objective {objective.name} asks for captions; expected objective.name: qa, or racro_pl.reward.Scorer"
        )
    if objective.name in ("cro", "joint"):
        return reward
    if not isinstance(reward, Scorer):
        raise RacroError(
            f"objective vpo takes its penalty off the reward of a reasoner's answers, and model.reward is a "
            f"{type(reward).__name__}; expected a racro_pl.reward.Scorer, or objective.name: cro"
        )
    judges: dict[str, Callable[[], CaptionJudge]] = {
        "policy": lambda: PolicyJudge(captioner),
        "reasoner": lambda: ReasonerJudge(reward.reasoner),
        "rule": RuleJudge,
    }
    return CaptionPenalty(reward, judges[objective.caption_judge](), objective.caption_penalty)


def check_questions(reward: RewardFunction, questions: Sequence[Question]) -> None:
    """Refuse a reward over several questions about a picture where every training question has its own picture.

    Args:
        reward: what gives the rewards. Those within it are looked at too.
        questions: of the training data.

    Raises:
        RacroError: it would pay for one question, as the plain reward does.
    """
    several = any(isinstance(part, SeveralQuestions) for part in rewards_within(reward))
    if several and not any(question.pool for question in questions):
        raise RacroError(
            "model.reward is or holds SeveralQuestions, and no two training questions have the same images; expected "
            "questions that name the same files (in the reckoning world: data.reader.init_args.questions_per_picture), "
            "or racro_pl.reward.Scorer"
        )


def check_strategy(objective: ObjectiveSettings, trainer: Trainer) -> None:
    """Refuse a judge whose forwards would leave ranks waiting for each other.

    Raises:
        RacroError: the policy is to judge, and its weights are sharded.
    """
    policy_judges = objective.name == "vpo" and objective.caption_judge == "policy"
    if policy_judges and isinstance(trainer.strategy, ShardedStrategy):
        raise RacroError(
            "objective.caption_judge: policy needs the whole model on every rank, and this strategy shards it: each "
            "rank judges another number of texts; choose the judge reasoner or rule, or the ddp strategy"
        )


class PolicyJudge(CaptionJudge):
    """The model that the run began with (adapter off, or the adapter it started from) is asked, as in the paper.

    Nothing is generated: "Yes" is the verdict where the reference model holds it more likely than "No" as the first
    word of its reply. The judge does not learn, so it cannot be talked into anything but by the texts themselves.
    """

    def __init__(self, captioner: Callable[[], Captioner]) -> None:
        self.captioner = captioner

    def submit(self, question: Question, texts: Sequence[str]) -> Verdicts:
        # Later, when sampling is over and the step waits for rewards anyway.
        return lambda: self.judge(question, texts)

    def judge(self, question: Question, texts: Sequence[str]) -> list[bool | None]:
        """Judge now; equal texts once, empty ones not at all."""
        captioner = self.captioner()
        prompts = {}
        for text in texts:
            try:
                if text.strip() and text not in prompts:
                    prompts[text] = captioner.encoder.encode_text(judge_messages(question.text, text))
            except PromptError:
                continue  # a text that spells special tokens tries to write the judge's prompt on: no caption
        if not prompts:
            return [False] * len(texts)
        count = len(prompts)
        token_ids = _first_words(captioner).repeat(count).unsqueeze(1)
        mask = torch.ones_like(token_ids, dtype=torch.bool)
        asked = torch.arange(count).repeat_interleave(2)
        scores = captioner.frozen_logprobs(list(prompts.values()), asked, token_ids, mask, reference=True)
        yes, no = scores.view(count, 2).unbind(dim=1)
        verdicts = dict(zip(prompts, (yes > no).tolist(), strict=True))
        return [verdicts.get(text, False) for text in texts]


def _first_words(captioner: Captioner) -> Tensor:
    """The tokens that "Yes" and "No" begin with, (2,)."""
    tokenizer = captioner.encoder.tokenizer
    yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No"))
    if yes == no:
        raise RacroError(
            "objective.caption_judge: policy: this captioner's tokenizer spells Yes and No with the same first token; "
            "choose the judge reasoner or rule"
        )
    return torch.tensor([yes, no])
