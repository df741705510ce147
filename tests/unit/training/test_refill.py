"""Groups without signal make room for further questions: how many, which, and the same ones after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from racro_pl.data.sampling import extra_indices
from racro_pl.training.checkpointing.io import RacroCheckpointIO
from racro_pl.training.module import RacroModule
from racro_pl.training.rollouts import is_flat, replace_flat
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import Rewards
from tests.fakes.engines import FixedEngine
from tests.helpers.device import trainer_options
from tests.unit.training.conftest import ListData, adapter, by_caption, make_module, questions


def rewards(*totals: float | None) -> Rewards:
    n = len(totals)
    scored = tuple(total is not None for total in totals)
    return Rewards(tuple(float(total or 0) for total in totals), {}, scored, (None,) * n, ((),) * n, ((),) * n)


FLAT, SPLIT, DOWN = rewards(1, 1, None), rewards(0, 1, 1), rewards(None, None, None)


def refill(groups: list[Any], rounds: int, supply: list[Any]) -> tuple[list[Any], list[Any], list[int]]:
    """Groups and supply are (name, rewards); returns names, and how many were asked for each time."""
    asked: list[int] = []

    def draw(count: int) -> list[Any]:
        asked.append(count)
        taken, supply[:] = supply[:count], supply[count:]
        return taken

    kept, excluded = replace_flat(groups, rounds, lambda group: group[1], draw)
    return [name for name, _ in kept], [name for name, _ in excluded], asked


def test_groups_with_signal_take_the_places_of_those_without():
    groups = [("a", FLAT), ("b", SPLIT), ("c", FLAT), ("d", FLAT)]
    supply = [("p", FLAT), ("q", SPLIT), ("r", SPLIT), ("s", FLAT), ("t", SPLIT), ("u", SPLIT)]
    # First round: three asked, q and r come in for a and c; second: one for d, and it is flat.
    assert refill(list(groups), 2, list(supply)) == (["q", "b", "r", "d"], ["p", "a", "c", "s"], [3, 1])
    assert refill(list(groups), 3, list(supply)) == (["q", "b", "r", "t"], ["p", "a", "c", "s", "d"], [3, 1, 1])
    assert refill(list(groups), 9, list(supply))[2] == [3, 1, 1]  # full: nothing more is drawn


def test_the_bound_holds_and_a_reasoner_that_is_down_is_not_asked_for_more():
    assert refill([("a", FLAT)], 2, [("p", FLAT)] * 9) == (["a"], ["p", "p"], [1, 1])
    assert refill([("a", DOWN), ("b", SPLIT)], 5, [("p", SPLIT)]) == (["a", "b"], [], [])
    assert refill([("a", FLAT)], 2, []) == (["a"], [], [1, 1])  # nothing left to draw


def test_the_order_of_further_questions_follows_from_seed_step_and_rank():
    assert sorted(extra_indices(50, 1, 0, 0)) == list(range(50))
    assert extra_indices(50, 1, 7, 0) == extra_indices(50, 1, 7, 0)
    others = [extra_indices(50, *place) for place in ((1, 7, 0), (2, 7, 0), (1, 8, 0), (1, 7, 1))]
    assert len({tuple(order) for order in others}) == 4


def half_flat(prompt: str) -> str:
    """Questions 2, 3, 6, 7, ... are always answered right."""
    return r"\boxed{red}" if "figure xx" in prompt else by_caption(prompt)


def fit(module: RacroModule, root: Path, steps: int, ckpt: str | None = None) -> Trainer:
    seed_everything(3)
    keep = ModelCheckpoint(dirpath=root, every_n_train_steps=4, save_top_k=-1, filename="{step}")
    trainer = Trainer(
        **trainer_options(), max_steps=steps, max_epochs=-1, logger=False, callbacks=[keep], enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=root, inference_mode=False,
        plugins=[RacroCheckpointIO()],
    )  # fmt: skip
    trainer.fit(module, datamodule=ListData(questions(16), 4), ckpt_path=ckpt)
    return trainer


@pytest.mark.parametrize("updates", [1, 2])
def test_a_step_fills_up_and_counts(folder, tmp_path, updates):
    module = make_module(folder, half_flat, refill_rounds=4, updates_per_rollout=updates)
    module.engine = FixedEngine(group_size=4, max_new_tokens=6)  # of others too many groups might be flat
    learnt: list[str] = []
    wait = module._wait_for_rewards

    def watch(batch: Any, metrics: Any) -> Any:
        rewards = wait(batch, metrics)
        for group in rewards:
            learnt.append("flat" if len(set(group.total)) == 1 else "split")
        return rewards

    module._wait_for_rewards = watch  # type: ignore[method-assign]
    figures = fit(module, tmp_path, 1).callback_metrics
    assert learnt == ["split"] * 4
    sampled = [rollout.question.id for rollout, _ in module.last_step]
    assert len(set(sampled)) == len(sampled) == 4 + figures["questions/refilled"]
    assert {"0", "1", "2", "3"} <= set(sampled)
    assert figures["questions/replaced"] >= 2  # two of the step's four are always flat
    assert 0 < figures["reward/zero_variance_share"] < 1  # of all that was sampled
    assert figures["questions/unsampled"] == 0


def test_off_by_default_and_no_more_than_asked_for(folder, tmp_path):
    assert ObjectiveSettings().refill_rounds == 0
    module = make_module(folder, lambda prompt: r"\boxed{red}", refill_rounds=2)
    figures = fit(module, tmp_path, 1).callback_metrics
    assert figures["questions/refilled"] == 8  # all four flat, twice
    assert figures["questions/replaced"] == 0
    assert [rollout.question.id for rollout, _ in module.last_step][:4] == ["0", "1", "2", "3"]


def test_a_resumed_run_draws_the_same_questions(folder, tmp_path):
    whole, second = (make_module(folder, half_flat, refill_rounds=2) for _ in range(2))
    fit(whole, tmp_path, 5)
    fit(second, tmp_path, 5, ckpt=str(tmp_path / "step=4.ckpt"))
    ids = [[rollout.question.id for rollout, _ in module.last_step] for module in (whole, second)]
    assert ids[0] == ids[1]
    assert len(ids[0]) > 4
    expected, found = adapter(whole), adapter(second)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_fractions_that_only_rounding_tells_apart_are_no_signal():
    means = [(0.2 + 0.4 + 0.6) / 3, (0.6 + 0.4 + 0.2) / 3]
    assert means[0] != means[1]
    assert is_flat(rewards(*means))
    assert is_flat(rewards(0.9, 0.9, None))
    assert not is_flat(rewards(0.9, 1.0))
    assert not is_flat(DOWN)
