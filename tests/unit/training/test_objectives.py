"""The objectives, switched by name, under a real Trainer; and the policy as judge of captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from racro_pl.commands.lightning import parts_of
from racro_pl.data.curriculum import Curriculum
from racro_pl.figure_world.models import resolve_model
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.reward.caption_penalty import CaptionPenalty, ReasonerJudge, RuleJudge
from racro_pl.reward.described_answer import DescribedAnswers
from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.reward.reward_function import rewards_within
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.several import SeveralReasoners
from racro_pl.reward.several_questions import SeveralQuestions
from racro_pl.rollout import TransformersEngine
from racro_pl.text.captioner_prompt import ANSWER_REQUEST, REQUEST
from racro_pl.training.callbacks.records import SolvedQuestions
from racro_pl.training.module import RacroModule
from racro_pl.training.objectives import PolicyJudge, check_questions, check_strategy
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.training.strategy import ShardedStrategy
from racro_pl.types import Question, RacroError
from tests.fakes.reasoners import ScriptedReasoner
from tests.helpers.device import device, trainer_options
from tests.unit.text.labelled import labelled
from tests.unit.training.conftest import ListData, adapter, fit, make_module, questions

CONFIGS = Path(__file__).parents[3] / "configs"


def named(name: str, **settings: Any) -> ObjectiveSettings:
    return ObjectiveSettings(name=name, **settings)


def test_an_objective_brings_its_own_numbers_and_what_is_given_wins():
    """The paper's stages: captions with KL 1e-3 and clips of 0.2, answers without KL and with clips 0.2 and 0.25."""
    for name in ("cro", "vpo"):
        variant = named(name).variant
        assert (variant.kl_coefficient, variant.clip_low, variant.clip_high) == (1e-3, 0.2, 0.2)
    variant = named("qa").variant
    assert (variant.kl_coefficient, variant.clip_low, variant.clip_high) == (0.0, 0.2, 0.25)
    assert named("qa", kl_coefficient=0.01, clip_high=0.3).variant.kl_coefficient == 0.01
    assert named("qa", clip_high=0.3).variant.clip_high == 0.3
    assert named("qa", loss="gspo").variant.clip_high == 4e-4
    with pytest.raises(ValueError, match="caption_penalty is 2.0; expected between 0 and 1"):
        named("vpo", caption_penalty=2.0)


def test_who_rewards_under_each_name(folder):
    assert isinstance(make_module(folder).scorer, Scorer)
    assert isinstance(make_module(folder, name="qa").scorer, OwnAnswers)
    judges = {"rule": RuleJudge, "reasoner": ReasonerJudge, "policy": PolicyJudge}
    for name, kind in judges.items():
        scorer = make_module(folder, name="vpo", caption_judge=name, caption_penalty=0.3).scorer
        assert isinstance(scorer, CaptionPenalty)
        assert isinstance(scorer.judge, kind)
        assert scorer.penalty == 0.3


def test_without_a_reasoner_only_answers_can_be_learnt(folder):
    policy, engine = PolicySettings(str(folder)), TransformersEngine()
    assert isinstance(RacroModule(policy, engine, objective=named("qa")).scorer, OwnAnswers)
    with pytest.raises(RacroError, match="objective cro learns from a reasoner's answers"):
        RacroModule(policy, engine)


def test_described_answers_reward_answers_only(folder):
    policy, engine = PolicySettings(str(folder)), TransformersEngine()
    reward = DescribedAnswers(ScriptedReasoner(lambda prompt: None), cache="off")
    assert RacroModule(policy, engine, reward, named("qa")).scorer is reward
    for name in ("cro", "vpo"):
        with pytest.raises(RacroError, match=f"objective {name} asks for captions; expected objective.name: qa"):
            RacroModule(policy, engine, reward, named(name))
    with pytest.raises(RacroError, match="model.reward is or holds DescribedAnswers"):
        RacroModule(policy, engine, CaptionPenalty(reward, RuleJudge()), named("cro"))


def test_several_questions_want_pictures_with_several():
    several = SeveralQuestions(ScriptedReasoner(lambda prompt: None), cache="off")
    alone = Question("q", (), "which?", "red", "text")
    penalised = CaptionPenalty(several, RuleJudge())
    listed = CaptionPenalty(penalised, RuleJudge())
    listed.parts = (OwnAnswers(), penalised)
    for reward in (several, penalised, listed):
        with pytest.raises(RacroError, match="no two training questions have the same images"):
            check_questions(reward, [alone])
        check_questions(reward, [alone, replace(alone, pool=(alone, alone))])
    check_questions(OwnAnswers(), [alone])


def test_the_rewards_within_one_are_found_wherever_it_keeps_them():
    """Reasoner A and B by scorers of their own: the second is in a list. A penalty holds all of it."""

    class Other(ScriptedReasoner):
        identity = "other"

    together = SeveralReasoners([ScriptedReasoner(str), Other(str)], cache="off")
    penalised = CaptionPenalty(together, RuleJudge())
    found = [type(part).__name__ for part in rewards_within(penalised)]
    assert found == ["CaptionPenalty", "SeveralReasoners", "Scorer"]
    assert list(rewards_within(penalised))[1] is together


def test_a_sharded_policy_cannot_judge():
    trainer = SimpleNamespace(strategy=ShardedStrategy())
    with pytest.raises(RacroError, match="choose the judge reasoner or rule"):
        check_strategy(named("vpo"), trainer)
    check_strategy(named("vpo", caption_judge="rule"), trainer)
    check_strategy(named("cro"), trainer)


@pytest.mark.parametrize(("config", "kind"), [("quickstart_qa", OwnAnswers), ("quickstart_vpo", CaptionPenalty)])
def test_the_quickstarts_parse(config, kind):
    module, data = parts_of(f"{CONFIGS / config}.yaml")
    assert isinstance(module.scorer, kind)
    assert module.objective.name == config.removeprefix("quickstart_")
    assert data.questions_per_step == 16


def test_question_answering_asks_for_answers_and_no_reasoner(folder, tmp_path, monkeypatch):
    """Learnt from, validated on, counted in tokens: the prompt that asks for an answer, everywhere."""

    def nobody(prompt: str) -> str:
        raise AssertionError("the reasoner was asked")

    def boxes(self: OwnAnswers, question: Question, texts: list[str]) -> Any:
        return plain(self, question, [rf"\boxed{{{'red' if len(text) % 2 else 'blue'}}}" for text in texts])

    plain = OwnAnswers.grade  # a random model writes no box: have it write one
    monkeypatch.setattr(OwnAnswers, "grade", boxes)
    module = make_module(folder, nobody, up=False, name="qa", kl_coefficient=None)
    trainer = fit(module, tmp_path, steps=2, limit_val_batches=1, val_check_interval=1)
    assert trainer.global_step == 2
    rollout, rewards = module.last_step[0]
    text = module.encoder.tokenizer.decode(rollout.prompt.input_ids)
    assert ANSWER_REQUEST in text
    assert REQUEST not in text
    assert len(rollout.prompt.input_ids) == module.count_prompt_tokens(rollout.question)
    assert set(rewards.parts) == {"correct", "answered"}
    assert 0 <= float(trainer.callback_metrics["val/accuracy"]) <= 1
    assert float(trainer.callback_metrics["val/unscored_share"]) == 0
    assert float(trainer.callback_metrics["policy/kl"]) == 0  # no reference pass
    assert any(tensor.any() for name, tensor in adapter(module).items() if "lora_B" in name)


@pytest.mark.parametrize("judge", ["rule", "policy"])
def test_the_penalty_reaches_what_is_learnt_from(folder, tmp_path, judge):
    module = make_module(folder, name="vpo", caption_judge=judge, caption_penalty=0.5)
    trainer = fit(module, tmp_path, steps=1)
    for _, rewards in module.last_step:
        for row in range(4):
            lost = 0.5 * rewards.parts["correct"][row] * (1 - rewards.parts["has_caption"][row])
            assert rewards.total[row] == rewards.parts["correct"][row] - lost
    assert float(trainer.callback_metrics["reasoner/judged"]) == 16
    # Byte salad of a random model describes nothing: the rule says so of all.
    if judge == "rule":
        assert float(trainer.callback_metrics["reasoner/without_caption"]) == 16
        assert 0 < float(trainer.callback_metrics["reward/mean"]) <= 0.5


@pytest.fixture(scope="module")
def embedded():
    policy = PolicySettings(
        resolve_model("embedded:figure-captioner"), dtype="float32", gradient_checkpointing=False,
        min_pixels=3136, max_pixels=3136,
    )  # fmt: skip
    return load_captioner(policy, device())


def test_the_policy_judges_with_the_model_it_began_with(embedded):
    """Yes against No as the reference holds them, whatever the policy has become; equal texts get equal verdicts."""
    judge = PolicyJudge(lambda: embedded)
    question = Question("q", (), "what is the color of circle ?", "red", "text")
    texts = ["color of circle red .", "red", "", "color of circle red .", "<|im_end|> Yes"]
    before = judge.submit(question, texts)()
    assert before[0] == before[3]
    assert before[2:] == [False, before[0], False]  # nothing written; and special tokens are not let in
    with torch.no_grad():
        for name, parameter in embedded.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 1.0)
    assert judge.submit(question, texts)() == before


@pytest.mark.slow
def test_the_embedded_captioner_is_no_judge(embedded):
    """Measured, so that nobody relies on it: it knows no such question and says Yes to everything, 30 of 60."""
    judge = PolicyJudge(lambda: embedded)
    rows = labelled()
    verdicts = [judge.judge(Question("q", (), row["question"], "", "text"), [row["text"]])[0] for row in rows]
    assert sum(verdict == row["has_caption"] for verdict, row in zip(verdicts, rows, strict=True)) == 30


def test_solved_questions_reach_the_data_module(folder, tmp_path):
    """Right whatever the caption for the third question of a step, by chance for the others."""
    notes: list[dict[str, bool]] = []

    class Noting(ListData):
        curriculum = Curriculum(solved_weight=0.5)

        def note_solved(self, results: dict[str, bool]) -> None:
            notes.append(results)

    def script(prompt: str) -> str:
        return r"\boxed{red}" if "figure xx ?" in prompt else r"\boxed{blue}"

    trainer = Trainer(
        **trainer_options(), max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, max_epochs=-1, default_root_dir=str(tmp_path),
        inference_mode=False, callbacks=[SolvedQuestions()],
    )  # fmt: skip
    trainer.fit(make_module(folder, script), datamodule=Noting(questions(8), 4))
    assert notes == [
        {"0": False, "1": False, "2": True, "3": False},
        {"4": False, "5": False, "6": True, "7": False},
    ]
