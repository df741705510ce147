"""The training step with captions of another engine: what reaches the loss, what is logged, how it ends."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from racro_pl.experience import reward_free_logprobs
from racro_pl.losses import grpo_loss
from racro_pl.policy.captioner import Captioner, Captions
from racro_pl.rollout import VllmEngine
from racro_pl.rollout.vllm import answer
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.training.module import RacroModule
from racro_pl.types import LossOutput
from tests.fakes.rollout_server import FakeVllm
from tests.helpers.tolerance import NATS
from tests.unit.policy.conftest import build
from tests.unit.training.conftest import adapter, fit, make_module


def serve(folder: Path, fault: str = "") -> FakeVllm:
    return FakeVllm(build(folder, torch.device("cpu"), min_pixels=1), fault)


def module_on(server: FakeVllm, folder: Path, **objective: Any) -> RacroModule:
    module = make_module(folder, **objective)
    module.engine = VllmEngine(
        group_size=4, max_new_tokens=6, url=server.url, canary_every=2, canary_questions=1, deadline_s=200.0, attempts=2
    )
    return module


@pytest.mark.parametrize("updates", [1, 2])
def test_steps_push_what_they_learn(folder, tmp_path, updates):
    with serve(folder) as server:
        module = module_on(server, folder, updates_per_rollout=updates)
        logger = CSVLogger(tmp_path, name="run", flush_logs_every_n_steps=1)
        fit(module, tmp_path, steps=3, logger=logger, log_every_n_steps=1)
    loads = [line.rpartition("-")[2] for line in server.log if line.startswith("load")]
    assert loads == [str(updates * step) for step in range(3)]
    assert server.adapters == {}
    assert {rollout.adapter_version for rollout, _ in module.last_step} == {2 * updates}
    rows = list(csv.DictReader((tmp_path / "run/version_0/metrics.csv").open()))
    assert len(rows) == 3
    for row in rows:
        assert float(row["importance/mean_ratio"]) == pytest.approx(1, abs=1e-3)
        assert float(row["importance/max_ratio"]) == pytest.approx(1, abs=1e-2)
        assert float(row["importance/effective_sample_share"]) == pytest.approx(1, abs=1e-4)
        assert float(row["importance/logprob_gap"]) < NATS
        assert float(row["rollout/canary_gap"]) < NATS
        assert float(row["rollout/push_seconds"]) > 0
    assert not (tmp_path / "run/version_0/rollout_adapters").exists()


def test_a_server_that_ignores_the_adapter_ends_the_run(folder, tmp_path):
    """At the start the adapter adds nothing and nobody could tell; after the first update the canary does."""
    with serve(folder, "deaf") as server:
        with torch.no_grad():
            for name, parameter in server.captioner.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()
        module = module_on(server, folder, learning_rate=0.3)
        with pytest.raises(RolloutError, match="canary"):
            fit(module, tmp_path, steps=5)
        assert module.updates_done == 1
        assert module.engine._calls is None  # closed, although the run failed


def test_log_probs_of_the_policy_are_taken_only_where_another_engine_sampled(folder, tmp_path, monkeypatch):
    """And the weights that they make with the sampler's reach the loss."""
    in_the_loss = []

    def noting(*inputs: Any) -> LossOutput:
        in_the_loss.append(inputs[5])
        return grpo_loss(*inputs)

    monkeypatch.setattr("racro_pl.training.module.grpo_loss", noting)
    with serve(folder) as server:
        module = module_on(server, folder)
        fit(module, tmp_path, steps=1)
    assert in_the_loss
    assert all(weights is not None and not torch.equal(weights, torch.ones_like(weights)) for weights in in_the_loss)
    in_the_loss.clear()
    rollouts = [rollout for rollout, _ in module.last_step]
    captioner: Captioner = module.captioner
    found = reward_free_logprobs(captioner, rollouts, old=False, reference=False, temperature=1.0, weigh=True)
    assert found.old_logprobs is not None
    assert found.importance is not None
    expected = (found.old_logprobs - torch.cat([r.sampler_logprobs for r in rollouts])[:, : found.mask.shape[1]]).exp()
    mask = found.mask
    torch.testing.assert_close(found.importance.weights[mask], expected.clamp(max=2.0)[mask])
    own = make_module(folder)
    fit(own, tmp_path, steps=1)
    assert all(r.sampler_logprobs is not None for r, _ in own.last_step)
    mine = reward_free_logprobs(
        own.captioner, [r for r, _ in own.last_step], old=False, reference=False, temperature=1.0
    )
    assert mine.old_logprobs is None
    assert mine.importance is None
    assert in_the_loss
    assert all(weights is None for weights in in_the_loss)


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize(("where", "shift"), [("in process", 0.0), ("in process", 0.25), ("vllm", 0.25)])
def test_the_gap_between_sampler_and_policy_is_logged_whoever_samples(
    folder, tmp_path, monkeypatch, where, shift, updates
):
    """Under the same names; in process without a pass more, and without weights in the loss."""
    monkeypatch.setattr("racro_pl.rollout.vllm.engine.read_captions", shifted(answer.read_captions, shift))
    generate = Captioner.generate
    monkeypatch.setattr(Captioner, "generate", lambda *args: told_otherwise(generate(*args), shift))
    passes = []
    frozen = Captioner.frozen_logprobs
    monkeypatch.setattr(
        Captioner, "frozen_logprobs", lambda self, *a, **k: passes.append(k["reference"]) or frozen(self, *a, **k)
    )
    figures: dict[str, float] = {}

    class Keeps(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            passes.clear()  # those of the look at the images, at the start

        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            figures.update({name: float(value) for name, value in trainer.callback_metrics.items()})

    options = {"updates_per_rollout": updates, "learning_rate": 1e-12}
    if where == "vllm":
        with serve(folder) as server:
            module = module_on(server, folder, **options)
            module.engine.canary_threshold = 10.0
            fit(module, tmp_path, steps=1, callbacks=[Keeps()])
    else:
        module = make_module(folder, **options)
        fit(module, tmp_path, steps=1, callbacks=[Keeps()])
        assert passes.count(False) == updates - 1  # the second update's old log-probs, which it needs anyway
    assert figures["importance/logprob_gap"] == pytest.approx(shift, abs=1e-4)
    assert figures["importance/mean_ratio"] == pytest.approx(math.exp(shift), abs=1e-3)
    assert figures["importance/max_ratio"] == pytest.approx(math.exp(shift), abs=1e-3)
    assert figures["importance/capped_share"] == 0


def told_otherwise(captions: Captions, shift: float) -> Captions:
    return replace(captions, logprobs=captions.logprobs - shift * captions.mask)


def shifted(read: Any, shift: float) -> Any:
    def shifting(*args: Any, **options: Any) -> answer.Sampled:
        sampled = read(*args, **options)
        return replace(sampled, logprobs=sampled.logprobs - shift * sampled.mask)

    return shifting


class Breaks(Callback):
    """The rollout server fails from a step on."""

    def __init__(self, server: FakeVllm, step: int) -> None:
        self.server, self.step = server, step

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            self.server.fault = "500"


def test_a_lost_server_stops_the_run_with_a_checkpoint_that_goes_on(folder, tmp_path):
    with serve(folder) as server:
        module = module_on(server, folder)
        with pytest.raises(
            RolloutError, match=r"sampled no captions for question (?s:.)*Resume with --ckpt_path "
        ) as error:
            fit(module, tmp_path, steps=5, callbacks=[Breaks(server, 2)])
        assert module.updates_done == 2  # the step without captions moves nothing
        weights = adapter(module)
    path = Path(str(error.value).rpartition("--ckpt_path ")[2])
    assert path.name == "stopped-step=3.ckpt"
    with serve(folder) as server:
        module = module_on(server, folder, learning_rate=1e-30)
        seen = []

        class Watch(Callback):
            def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
                seen.append((trainer.global_step, adapter(pl_module)))

        fit(module, tmp_path, steps=5, ckpt=str(path), callbacks=[Watch()])
    assert seen[0][0] == 3
    assert all(torch.equal(seen[0][1][name], weights[name]) for name in weights)
    assert module.updates_done == 4
    assert [line.rpartition("-")[2] for line in server.log if line.startswith("load")] == ["2", "3"]


def test_groups_sampled_before_the_loss_are_learnt_from(folder, tmp_path):
    with serve(folder) as server:
        module = module_on(server, folder)
        module.engine.concurrency = 1
        route = server.route

        def dies(path: str, body: dict[str, Any]) -> tuple[int, Any]:
            if len(server.chats) == 3:  # one of the canary, two of the step
                server.fault = "500"
            return route(path, body)

        server.route = dies  # type: ignore[method-assign]
        metrics = []

        class Watch(Callback):
            def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
                metrics.append(dict(trainer.callback_metrics))

        with pytest.raises(RolloutError, match="sampled no captions"):
            fit(module, tmp_path, steps=3, callbacks=[Watch()])
    assert module.updates_done == 1
    assert [rollout.question.id for rollout, _ in module.last_step] == ["0", "1"]
    assert metrics[0]["questions/unsampled"] == 2


def test_a_server_lost_in_a_validation_stops_the_run_with_a_checkpoint(folder, tmp_path):
    with serve(folder) as server:
        module = module_on(server, folder)

        class BreaksInValidation(Callback):
            def on_validation_start(self, trainer: Trainer, *args: Any) -> None:
                server.fault = "500"

        options = {"limit_val_batches": 1, "val_check_interval": 1, "check_val_every_n_epoch": None}
        with pytest.raises(RolloutError, match="--ckpt_path") as error:
            fit(module, tmp_path, steps=3, callbacks=[BreaksInValidation()], **options)
    path = Path(str(error.value).rpartition("--ckpt_path ")[2])
    with serve(folder) as server:
        again = module_on(server, folder)
        fit(again, tmp_path, steps=3, ckpt=str(path), **options)
        assert again.updates_done == 3


def test_a_stage_that_starts_from_an_adapter_pushes_one_that_holds_both(folder, tmp_path):
    """The canary compares the server's log-probs with the trainer's from the first push on."""
    build(folder, min_pixels=1).save(tmp_path / "start")
    with serve(folder) as server:
        module = module_on(server, folder, policy={"adapter": str(tmp_path / "start")})
        logger = CSVLogger(tmp_path, name="run", flush_logs_every_n_steps=1)
        fit(module, tmp_path, steps=2, logger=logger, log_every_n_steps=1)
    rows = list(csv.DictReader((tmp_path / "run/version_0/metrics.csv").open()))
    assert [float(row["rollout/canary_gap"]) < NATS for row in rows] == [True, True]
    # Far from the bare base already at the first push, where a fresh adapter would be the base itself.
    assert float(rows[0]["rollout/canary_base_gap"]) > 1e-3
