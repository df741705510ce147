"""The image cache in a run: it is found, logged, and leaves no trace in what is learnt."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.helpers.tolerance import GRADIENTS, assert_equal
from tests.unit.training.conftest import adapter, fit, make_module
from tests.unit.training.test_step import GradientsOfEveryUpdate


class Figures(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("images/")})


def test_a_resumed_run_whose_cache_is_empty_ends_on_the_same_bits(folder, tmp_path):
    """Eight questions, four a step: from the third step on every image has been seen; resumed after the fourth."""
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=4, save_top_k=-1, filename="{step}")
    runs, seen = [], []
    for steps, checkpoint in ((6, None), (6, str(tmp_path / "step=4.ckpt"))):
        module, figures = make_module(folder, policy={"image_cache_mib": 8}), Figures()
        callbacks = [figures, keep] if checkpoint is None else [figures]
        fit(module, tmp_path, steps, checkpoint, callbacks=callbacks, enable_checkpointing=checkpoint is None)
        runs.append(adapter(module))
        seen.append([step["images/cache_hit_share"] for step in figures.steps])
    # Before the first step, the check of the gradients looked at the first question.
    assert seen[0] == pytest.approx([0.2, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert seen[1] == pytest.approx([0.2, 0.0])
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_without_a_cache_nothing_is_logged_and_the_same_is_learnt(folder, tmp_path):
    found = []
    for size in (0, 8):
        # A learning rate that moves nothing: AdamW would blow rounding up to whole steps where a gradient is near zero.
        module = make_module(folder, policy={"image_cache_mib": size}, learning_rate=1e-12)
        figures, gradients = Figures(), GradientsOfEveryUpdate()
        fit(module, tmp_path, 3, callbacks=[figures, gradients])
        found.append((gradients.seen, figures.steps[-1]))
    (without, nothing), (cached, logged) = found
    assert nothing == {}
    assert logged["images/cache_hit_share"] == 1.0
    assert logged["images/cache_mib"] > 0
    assert len(without) == 3
    for mine, other in zip(cached, without, strict=True):
        assert_equal(mine, other, GRADIENTS)
