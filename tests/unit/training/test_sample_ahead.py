"""Learning from the captions of the step before: which, with which weights, and what runs meanwhile."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from racro_pl.rollout import RolloutError, VllmEngine
from racro_pl.training.module import RacroModule
from racro_pl.training.settings import ObjectiveSettings
from tests.fakes.rollout_server import FakeVllm
from tests.helpers.tolerance import GRADIENTS, assert_equal
from tests.unit.policy.conftest import build
from tests.unit.training.conftest import adapter, fit, make_module


class Watch(Callback):
    """What every step learnt from, its gradients, and its metrics."""

    def __init__(self) -> None:
        self.ids: list[list[str]] = []
        self.versions: list[set[int]] = []
        self.metrics: list[dict[str, float]] = []
        self.gradients: list[torch.Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.optimizers[0].register_step_pre_hook(self._keep)

    def _keep(self, optimizer: Any, *_: Any) -> None:
        gradients = [parameter.grad for parameter in optimizer.param_groups[0]["params"]]
        if gradients[0] is not None:
            self.gradients.append(torch.cat([gradient.flatten().clone() for gradient in gradients]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        self.ids.append([rollout.question.id for rollout, _ in pl_module.last_step])
        self.versions.append({rollout.adapter_version for rollout, _ in pl_module.last_step})
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_off_by_default_and_not_with_refill():
    assert not ObjectiveSettings().sample_ahead
    with pytest.raises(ValueError, match="refill_rounds waits for rewards before it learns, which sample_ahead avoids"):
        ObjectiveSettings(sample_ahead=True, refill_rounds=1)


def test_where_nothing_moves_it_learns_the_same_one_step_later(folder, tmp_path):
    updates = 2
    seen = []
    for ahead in (False, True):
        watch = Watch()
        module = make_module(folder, sample_ahead=ahead, updates_per_rollout=updates, learning_rate=1e-12)
        fit(module, tmp_path, steps=2 + ahead, callbacks=[watch])
        seen.append(watch)
    on_time, late = seen
    assert on_time.ids == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
    assert late.ids == [[], *on_time.ids]
    assert len(late.gradients) == len(on_time.gradients) == 2 * updates
    for mine, other in zip(late.gradients, on_time.gradients, strict=True):
        assert_equal(mine, other, GRADIENTS)
    assert math.isnan(late.metrics[0]["reward/mean"])
    assert late.metrics[0]["policy/skipped_updates"] == updates
    assert [metrics["questions/unsampled"] for metrics in late.metrics] == [0, 0, 0]


def test_captions_are_one_step_old_and_weighted_for_it(folder, tmp_path):
    watch = Watch()
    module = make_module(folder, sample_ahead=True, learning_rate=0.05)
    fit(module, tmp_path, steps=4, callbacks=[watch])
    # Sampled before the first update, before it as well, before the second: step 1 made none.
    assert watch.versions == [set(), {0}, {0}, {1}]
    assert watch.metrics[1]["importance/max_ratio"] == pytest.approx(1, abs=1e-4)  # nothing has moved yet
    for metrics in watch.metrics[2:]:
        assert metrics["importance/logprob_gap"] > 1e-3
        assert metrics["importance/effective_sample_share"] < 1


def serve(folder: Path) -> FakeVllm:
    return FakeVllm(build(folder, torch.device("cpu"), min_pixels=1))


def module_on(server: FakeVllm, folder: Path) -> RacroModule:
    module = make_module(folder, sample_ahead=True)
    module.engine = VllmEngine(
        group_size=4, max_new_tokens=6, url=server.url, canary_questions=1, deadline_s=200.0, attempts=2
    )
    return module


def test_vllm_samples_while_the_trainer_learns(folder, tmp_path):
    """The second step's captions come only when that step has learnt from the first's. A validation lies between."""
    watch, learnt = Watch(), threading.Event()

    class Says(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 2:
                learnt.set()

    with serve(folder) as server:
        route = server.route

        def wait(path: str, body: dict[str, Any]) -> tuple[int, Any]:
            if path.endswith("/chat/completions") and len(server.chats) == 5:  # one of the canary, four of step 1
                assert learnt.wait(150)
            return route(path, body)

        server.route = wait  # type: ignore[method-assign]
        module = module_on(server, folder)
        options = {"limit_val_batches": 1, "val_check_interval": 2, "check_val_every_n_epoch": None}
        fit(module, tmp_path, steps=4, callbacks=[watch, Says()], **options)
    assert watch.versions == [set(), {0}, {0}, {1}]
    assert module.updates_done == 3
    assert watch.metrics[-1]["importance/logprob_gap"] > 1e-5
    assert all(metrics["questions/unsampled"] == 0 for metrics in watch.metrics)


def test_a_lost_server_stops_the_run(folder, tmp_path):
    with serve(folder) as server:
        module = module_on(server, folder)

        class Breaks(Callback):
            def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
                if trainer.global_step == 2:
                    server.fault = "500"

        with pytest.raises(RolloutError, match="--ckpt_path") as error:
            fit(module, tmp_path, steps=5, callbacks=[Breaks()])
        weights = adapter(module)
    path = str(error.value).rpartition("--ckpt_path ")[2]
    assert Path(path).is_file()
    with serve(folder) as server:
        again = module_on(server, folder)
        watch = Watch()
        # Captions were under way when the server broke: which step noticed is a matter of time.
        fit(again, tmp_path, steps=8, ckpt=path, callbacks=[watch])
        assert watch.ids[0] == []
        assert len(watch.ids[-1]) == 4
        assert any(not torch.equal(weights[name], tensor) for name, tensor in adapter(again).items())


@pytest.mark.parametrize("where", ["in process", "vllm"])
def test_the_reasoner_has_a_step_for_captions_sampled_ahead(folder, tmp_path, where):
    """While a step learns, the captions sampled meanwhile reach the reasoner: the server holds them back until then."""
    learning, asked_ahead = threading.Event(), threading.Event()
    with serve(folder) as server:
        route = server.route

        def late(path: str, body: dict[str, Any]) -> tuple[int, Any]:
            if path.endswith("/chat/completions") and len(server.chats) >= 5:  # one of the canary, four of step 1
                assert learning.wait(150)
            return route(path, body)

        server.route = late  # type: ignore[method-assign]
        module = module_on(server, folder) if where == "vllm" else make_module(folder, sample_ahead=True)
        submit, update, seen = module.scorer.submit, module._update, []

        def watched(question: Any, captions: Any, seed: int = 0) -> Any:
            seen.append((question.id, seed))
            if question.id == "7":
                asked_ahead.set()
            return submit(question, captions, seed)

        def learn(meter: Any, *, last: bool) -> None:
            if module.trainer.global_step == 1:  # the second step, which learns from the first's captions
                learning.set()
                assert asked_ahead.wait(150), "the captions of the second step have not reached the reasoner"
            update(meter, last=last)

        module.scorer.submit = watched  # type: ignore[method-assign]
        module._update = learn  # type: ignore[method-assign]
        fit(module, tmp_path, steps=2)
    assert [name for name, _ in seen] == [str(index) for index in range(8)]
    assert len({seed for _, seed in seen}) == 2  # each step's own


def test_a_fault_of_the_program_in_captions_sampled_ahead_ends_the_run(folder, tmp_path):
    with serve(folder) as server:
        module = module_on(server, folder)
        submit = module.scorer.submit

        def breaks(question: Any, captions: Any, seed: int = 0) -> Any:
            if question.id == "5":
                raise ZeroDivisionError("a bug")
            return submit(question, captions, seed)

        module.scorer.submit = breaks  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError, match="a bug"):
            fit(module, tmp_path, steps=4)
    assert not [thread for thread in threading.enumerate() if thread.name == "captions-ahead" and thread.is_alive()]


def test_a_run_that_ends_sends_nothing_more_to_the_reasoner(folder, tmp_path):
    """Captions of the last step are under way when the reasoner is closed: they must not open it again."""
    ended = threading.Event()
    with serve(folder) as server:
        route = server.route

        def late(path: str, body: dict[str, Any]) -> tuple[int, Any]:
            if path.endswith("/chat/completions") and len(server.chats) >= 5:
                ended.wait(150)
            return route(path, body)

        server.route = late  # type: ignore[method-assign]
        module = module_on(server, folder)
        close, submit, after = module.scorer.close, module.scorer.submit, []

        def closing() -> None:
            close()
            ended.set()

        def watched(*args: Any) -> Any:
            after.append(ended.is_set())
            return submit(*args)

        module.scorer.close = closing  # type: ignore[method-assign]
        module.scorer.submit = watched  # type: ignore[method-assign]
        fit(module, tmp_path, steps=2)
        for thread in threading.enumerate():
            if thread.name == "captions-ahead":
                thread.join(150)
                assert not thread.is_alive()
    assert after == [False] * 4
