"""What is configured and does nothing is said: one line per setting, and none where all is well."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from racro_pl.commands.lightning import parts_of
from racro_pl.data.curriculum import Curriculum
from racro_pl.reward import SeveralReasoners
from racro_pl.reward.scorer import Scorer
from racro_pl.rollout import TransformersEngine
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.training.startup import unused_settings
from tests.fakes.reasoners import ScriptedReasoner
from tests.unit.test_configs import FOR_FIT
from tests.unit.training.conftest import by_caption, fit, make_module


class Other(ScriptedReasoner):
    identity = "other"


def lines(questions: int = 8, curriculum: Curriculum | None = None, group: int = 4, **objective: Any) -> list[str]:
    reasoners = [ScriptedReasoner(by_caption), Other(by_caption)]
    cache: dict[str, Any] = objective.pop("reward", {})
    reward = SeveralReasoners(reasoners) if objective.pop("several", False) else Scorer(reasoners[0], **cache)
    module: Any = SimpleNamespace(
        objective=ObjectiveSettings(**objective), engine=TransformersEngine(group_size=group), reward=reward
    )
    return list(unused_settings(module.objective, module.engine, module.reward, questions, curriculum))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"micro_batch_size": 3}, "micro_batch_size is 3, and a group has 4 captions .*: 4 captions per forward"),
        ({"micro_batch_size": 11}, "micro_batch_size is 11, .*: 8 captions per forward"),
        ({"questions": 1}, r"updates_per_rollout is 2, and a rank has 1 questions a step .*: 1 updates are made"),
        (
            {"updates_per_rollout": 1, "clip_high": 0.3},
            r"without effect here: objective.clip_high 0.3; with one update",
        ),
        ({"kl_coefficient": 0.0, "kl": "k1"}, "without effect here: objective.kl 'k1'; kl_coefficient is 0"),
        (
            {"importance": "sequence", "importance_cap": 4.0},
            "objective.importance 'sequence', objective.importance_cap 4.0; the policy samples its captions itself",
        ),
        ({"caption_penalty": 0.3}, "objective.caption_penalty 0.3; they are vpo's, and objective.name is cro"),
        ({"answer_weight": 0.5}, "objective.answer_weight 0.5; they are joint's, and objective.name is cro"),
        (
            {"name": "joint", "answer_clip_high": 0.3, "updates_per_rollout": 1},
            "objective.answer_clip_high 0.3; with one update",
        ),
        ({"name": "vpo", "caption_judge": "reasoner", "several": True}, "asks the first of model.reward.reasoners"),
        (
            {"refill_rounds": 1, "curriculum": Curriculum(solved_weight=0.0)},
            "refill_rounds draws further questions evenly: data.curriculum's weights do not hold",
        ),
        ({"reward": {"cache_path": Path("replies")}}, "without effect here: reward.cache_path; cache is off, or auto"),
    ],
    ids=str,
)
def test_a_setting_without_effect_is_named(settings, line):
    (found,) = lines(**settings)
    assert re.search(line, found), found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"updates_per_rollout": 1, "clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0},  # as config.yaml has them
        {"sample_ahead": True, "importance_cap": 4.0},
        {"name": "vpo", "caption_penalty": 0.3, "caption_judge": "reasoner"},
        {"name": "joint", "answer_weight": 0.5, "answer_clip_high": 0.25, "updates_per_rollout": 1},
        {"name": "joint", "kl_coefficient": 0.0, "answer_kl_coefficient": 0.1, "kl": "k1"},
        {"kl_coefficient": 0.0, "kl": "k3"},
        {"reward": {"cache_path": Path("replies"), "cache": "on"}},
        {"refill_rounds": 1, "curriculum": Curriculum(easiest_first=True, pass_rate="rate")},
    ],
    ids=str,
)
def test_settings_that_have_an_effect_are_worth_no_line(settings):
    assert lines(**settings) == []


@pytest.mark.parametrize("path", FOR_FIT, ids=lambda path: path.name)
def test_the_configurations_that_ship_hold_no_setting_without_effect(path: Path):
    module, data = parts_of(str(path))
    assert (
        list(unused_settings(module.objective, module.engine, module.reward, data.questions_per_step, data.curriculum))
        == []
    )


def test_a_run_says_it_at_its_start(folder, tmp_path, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr("racro_pl.training.base.rank_zero_info", told.append)
    fit(make_module(folder, micro_batch_size=5), tmp_path, steps=0)
    assert told == [
        "objective.micro_batch_size is 5, and a group has 4 captions (rollout.group_size), which stay together: 4 "
        "captions per forward and backward pass"
    ]
