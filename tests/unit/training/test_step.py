"""The training step under a real Trainer: what it learns from, how it counts, when it stops."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import (
    DDPStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)

from racro_pl.policy.config import PolicySettings
from racro_pl.reward.reasoner import ReasonerError
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.unscored import UnscoredError
from racro_pl.training.startup import check_trainer
from racro_pl.training.strategy import ShardedStrategy
from racro_pl.types import ImageRef, RacroError
from tests.fakes.engines import FixedEngine
from tests.helpers.device import trainer_options
from tests.helpers.tolerance import GRADIENTS, assert_equal
from tests.unit.training.conftest import ListData, adapter, by_caption, fit, make_module, questions


def test_a_step_moves_every_adapter_tensor_and_nothing_else(folder, tmp_path):
    module = make_module(folder)
    module.strict_loading = False
    frozen = {}

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            base = [(n, p) for n, p in pl_module.captioner.named_parameters() if not p.requires_grad]
            frozen.update({n: p.to("cpu", copy=True) for n, p in base})
            self.before = adapter(pl_module)

    watch = Watch()
    fit(module, tmp_path, steps=2, callbacks=[watch])
    after = adapter(module)
    assert all(not torch.equal(after[name], watch.before[name]) for name in after)
    assert all(torch.equal(p, frozen[n]) for n, p in module.captioner.named_parameters() if n in frozen)


@pytest.mark.parametrize("updates", [1, 2])
def test_micro_batches_change_nothing(folder, tmp_path, updates):
    """One group at a time (4 times 4 captions) equals all 16 captions at once; gradients meet before the division."""
    # A learning rate that moves nothing: AdamW would blow rounding up to whole steps where a gradient is near zero.
    results = []
    for size in (4, 16):
        watch = GradientsOfEveryUpdate()
        module = make_module(folder, micro_batch_size=size, updates_per_rollout=updates, learning_rate=1e-12)
        fit(module, tmp_path, steps=2, callbacks=[watch])
        results.append(watch.seen)
    assert len(results[0]) == len(results[1]) == 2 * updates
    for one_by_one, together in zip(*results, strict=True):
        assert_equal(one_by_one, together, GRADIENTS)


def test_without_a_kl_term_captions_without_signal_are_skipped_and_change_nothing(folder, tmp_path):
    """Against a KL term too small to matter, for which everything is forwarded: same gradients, fewer tokens."""

    def half_flat(prompt: str) -> str:
        return r"\boxed{red}" if "figure xx" in prompt or "figure xxx" in prompt else by_caption(prompt)

    seen, figures = [], []
    for coefficient in (0.0, 1e-30):
        watch = GradientsOfEveryUpdate()
        module = make_module(folder, half_flat, kl_coefficient=coefficient, learning_rate=1e-12, micro_batch_size=16)
        module.engine = FixedEngine(group_size=4, max_new_tokens=6)  # others might all be right, or all wrong
        trainer = fit(module, tmp_path, steps=1, callbacks=[watch])
        seen.append(watch.seen)
        figures.append({name: float(value) for name, value in trainer.logged_metrics.items()})
    assert figures[0]["policy/skipped_captions"] >= 8  # questions 2 and 3 of 4: every caption right
    assert figures[1]["policy/skipped_captions"] == 0
    assert seen[0][0].any()
    assert_equal(seen[0][0], seen[1][0], GRADIENTS)
    assert figures[0]["policy/loss"] == pytest.approx(figures[1]["policy/loss"], abs=1e-6)


def test_equal_fractions_are_skipped_and_count_as_groups_without_signal(folder, tmp_path, monkeypatch):
    """Two of three votes right, from every caption of groups of 12: the mean of a group is not 2/3 in float32."""
    monkeypatch.setattr(Scorer, "_totals", lambda self, verdicts, seed: (2 / 3,) * len(verdicts))
    module = make_module(folder, kl_coefficient=0.0, micro_batch_size=48, refill_rounds=1, weight_decay=0.0)
    module.engine.group_size = 12
    before = {}

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            before.update(adapter(pl_module))

    figures = fit(module, tmp_path, callbacks=[Watch()]).logged_metrics
    assert figures["questions/refilled"] == 4
    assert figures["reward/zero_variance_share"] == 1
    assert figures["policy/skipped_captions"] == 48
    assert figures["policy/grad_norm"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapter(module).items())


def test_an_image_goes_through_the_tower_once_in_a_step(folder, tmp_path):
    """Across sampling, reference, old and policy log-probs, four captions each and two updates."""
    module = make_module(folder, updates_per_rollout=2, micro_batch_size=4)
    patches = []

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            tower = pl_module.captioner.model.get_base_model().model.visual
            tower.register_forward_pre_hook(lambda _, args: patches.append(len(args[0])))

    fit(module, tmp_path, steps=1, callbacks=[Watch()])
    assert sum(patches) == sum(len(rollout.prompt.pixel_values) for rollout, _ in module.last_step)


class GradientsOfEveryUpdate(Callback):
    """The flat gradient at each optimizer update, those that bypass Lightning's counter included."""

    def on_train_start(self, trainer, pl_module):
        self.seen = []
        trainer.optimizers[0].register_step_pre_hook(
            lambda optimizer, *_: self.seen.append(
                torch.cat([p.grad.flatten() for p in optimizer.param_groups[0]["params"]])
            )
        )


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "gspo"])
def test_the_gradient_is_the_mean_of_the_whole_step(folder, tmp_path, loss):
    """Against the objective written out over the step's own captions: -A * ratio + beta * k3, over all tokens.

    The adapter starts at zero, so ratio is 1 and k3 is 0 with gradient 0: d/dlogp = -A / tokens; or, without std,
    -A / (captions * the length limit of 6); or, for a sequence's ratio, -A / (its tokens * captions).
    """
    module = make_module(folder, max_grad_norm=1e9, loss=loss)
    found = {}

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            found.update({n: p.grad.clone() for n, p in pl_module.captioner.named_parameters() if p.requires_grad})

    reference = make_module(folder)
    fit(reference, tmp_path, steps=1, callbacks=[_StopBeforeStep(reference)])
    fit(module, tmp_path, steps=1, callbacks=[Watch()])
    captioner, groups = reference.captioner, module.last_step
    total, tokens, captions = 0.0, 0, 4 * 4
    for rollout, rewards in groups:
        reward = torch.tensor(rewards.total)
        advantage = reward - reward.mean()
        if loss != "dr_grpo":
            advantage = advantage / (reward.std() + 1e-6)
        for row in range(4):
            ids = rollout.token_ids[row, : int(rollout.mask[row].sum())][None]
            ones = torch.ones_like(ids, dtype=torch.bool)
            logprobs, _ = captioner.logprobs([rollout.prompt], torch.tensor([0]), ids, ones)
            total = total - advantage[row] * (logprobs.mean() if loss == "gspo" else logprobs.sum())
            tokens += ids.shape[1]
    (total / {"grpo": tokens, "dr_grpo": 6 * captions, "gspo": captions}[loss]).backward()
    assert found
    for name, parameter in captioner.named_parameters():
        if name in found:
            assert_equal(found[name], parameter.grad, GRADIENTS, name)


class _StopBeforeStep(Callback):
    """Leaves the policy as it was built: its learning rate is zero."""

    def __init__(self, module):
        module.objective.learning_rate = 1e-30
        module.objective.weight_decay = 0.0


@pytest.mark.parametrize("updates", [1, 2])
def test_steps_checkpoints_and_logged_axis_agree(folder, tmp_path, updates):
    module = make_module(folder, updates_per_rollout=updates)
    logger = CSVLogger(tmp_path, name="run", flush_logs_every_n_steps=1)
    keep = ModelCheckpoint(every_n_train_steps=3, save_top_k=-1, filename="{step}", save_last=True)
    trainer = fit(
        module, tmp_path, steps=6, logger=logger, callbacks=[keep], enable_checkpointing=True, log_every_n_steps=1
    )
    assert trainer.global_step == 6
    assert module.updates_done == 6 * updates
    saved = {path.name for path in (tmp_path / "run/version_0/checkpoints").iterdir()}
    assert {"step=3.ckpt", "step=6.ckpt", "last.ckpt", "step=3-adapter", "last-adapter"} <= saved
    rows = (tmp_path / "run/version_0/metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    assert [int(row.split(",")[header.index("step")]) for row in rows[1:]] == [0, 1, 2, 3, 4, 5]
    for name in (
        "reward/mean", "reward/std", "reward/zero_variance_share", "reward/unscored_share", "caption/tokens",
        "caption/truncated_share", "policy/kl", "policy/clip_share", "policy/dual_clip_share", "policy/entropy",
        "policy/grad_norm", "learning_rate", "seconds/sample", "seconds/reason", "seconds/logprobs", "seconds/update",
        "seconds/idle", "questions/unsampled", "speed/captions_per_second", "memory/peak_gib",
    ):  # fmt: skip
        assert name in header


def test_a_caption_without_a_score_is_masked_not_zero(folder, tmp_path):
    """Reward 1 for every caption that is scored: with a zero for the failed ones there would be a gradient."""

    def script(prompt: str) -> str | None:
        return r"\boxed{red}" if by_caption(prompt) == r"\boxed{red}" else None

    module = make_module(folder, script, kl_coefficient=0.0)
    module.scorer.max_unscored_share = 0.95
    module.engine = FixedEngine(group_size=4, max_new_tokens=6)  # an empty caption would earn 0
    before = {}

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            before.update(adapter(pl_module))

    module.objective.weight_decay = 0.0
    fit(module, tmp_path, callbacks=[Watch()])
    after = adapter(module)
    assert all(torch.equal(after[name], before[name]) for name in before)
    scored = [flag for _, rewards in module.last_step for flag in rewards.scored]
    assert any(scored)
    assert not all(scored)


def test_above_the_allowed_share_the_run_stops_with_a_checkpoint(folder, tmp_path):
    module = make_module(folder, lambda prompt: None)
    with pytest.raises(UnscoredError, match="have no score.*down"):
        fit(module, tmp_path, steps=5)
    saved = list((tmp_path / "checkpoints").glob("stopped-*.ckpt"))
    assert len(saved) == 1
    assert str(saved[0].name) == "stopped-step=1.ckpt"
    assert torch.load(saved[0], weights_only=True)["global_step"] == 1


def test_a_reasoner_that_is_down_stops_the_run_before_a_caption_is_sampled(folder, tmp_path):
    module = make_module(folder, up=False)
    with pytest.raises(ReasonerError, match="is down"):
        fit(module, tmp_path)
    assert module.last_step == []


def test_a_reasoner_that_is_away_during_a_validation_does_not_end_the_run(folder, tmp_path):
    """Its questions go unscored and are counted; whether to stop is decided by the share of a training step."""
    module = make_module(folder)

    class Outage(Callback):
        def on_validation_start(self, trainer, pl_module):
            pl_module.scorer.reasoner.up = False
            pl_module.scorer.reasoner.script = lambda prompt: None

        def on_validation_end(self, trainer, pl_module):
            pl_module.scorer.reasoner.up = True
            pl_module.scorer.reasoner.script = by_caption

    trainer = fit(module, tmp_path, steps=2, callbacks=[Outage()], limit_val_batches=1.0, val_check_interval=1)
    assert trainer.global_step == 2
    assert trainer.callback_metrics["val/unscored_share"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clip_val": 1.0}, r"gradient_clip_val has no effect here; set model.objective.max_grad_norm"),
        ({"accumulate_grad_batches": 4}, r"accumulate_grad_batches has no effect here; set model.objective.micro"),
        ({"precision": "bf16-true"}, "would cast the float32 adapters"),
    ],
)
def test_trainer_flags_that_would_be_ignored_are_refused(folder, tmp_path, options, message):
    options = trainer_options() | options
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path, **options)
    with pytest.raises(RacroError, match=message):
        check_trainer(trainer, make_module(folder).policy_settings)


@pytest.mark.parametrize(("ranks", "refused"), [(1, False), (2, True)])
def test_several_ranks_do_not_validate_by_their_clocks(folder, tmp_path, ranks, refused):
    options = trainer_options() | {"val_check_interval": "00:00:10:00", "check_val_every_n_epoch": None}
    trainer = Trainer(**options, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.strategy.world_size = ranks
    with pytest.raises(RacroError, match="by its own clock") if refused else nullcontext():
        check_trainer(trainer, make_module(folder).policy_settings)


@pytest.mark.parametrize(
    ("strategy", "quantization", "message"),
    [
        (FSDPStrategy, "none", r"strategy FSDPStrategy is not supported; use ddp .* or fsdp2"),
        (ModelParallelStrategy, "none", r"strategy ModelParallelStrategy is not supported; use ddp .* or fsdp2"),
        (ShardedStrategy, "nf4", r"4-bit weights cannot be sharded.*use the ddp strategy, or quantization: none"),
        (ShardedStrategy, "none", None),
        (DDPStrategy, "nf4", None),
        (SingleDeviceStrategy, "nf4", None),
    ],
)
def test_strategies_that_would_go_wrong_are_refused_at_start(tmp_path, strategy, quantization, message):
    trainer = Trainer(**trainer_options(), logger=False, default_root_dir=tmp_path)
    trainer._accelerator_connector.strategy = strategy()
    with nullcontext() if message is None else pytest.raises(RacroError, match=message):
        check_trainer(trainer, PolicySettings("m", quantization=quantization))


def test_a_policy_left_in_eval_mode_is_noticed(folder, tmp_path):
    class Careless(Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.captioner.eval()

    with pytest.raises(RuntimeError, match="not in train mode"):
        fit(make_module(folder), tmp_path, callbacks=[Careless()])


def test_a_layer_that_gets_no_gradient_is_named_before_the_first_step(folder, tmp_path):
    module = make_module(folder)
    configure = module.configure_model

    def cut() -> None:
        configure()
        layer = module.captioner.model.get_base_model().model.language_model.layers[0]
        layer.register_forward_hook(lambda _, __, output: output.detach())

    module.configure_model = cut
    with pytest.raises(RacroError, match=r"14 of 14|7 of 14 adapter tensors get no gradient"):
        fit(module, tmp_path)
    assert module.last_step == []


def test_a_broken_image_costs_its_question_not_the_step(folder, tmp_path):
    items = questions(4)
    whole = items[0].images[0].data
    items[0] = replace(items[0], images=(ImageRef(data=whole[: len(whole) - 30]),))
    module = make_module(folder)
    trainer = Trainer(
        **trainer_options(), max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=str(tmp_path),
    )  # fmt: skip
    trainer.fit(module, datamodule=ListData(items, 4))
    assert [rollout.question.id for rollout, _ in module.last_step] == ["1", "2", "3"]
    assert trainer.logged_metrics["questions/dropped"] == 1


@pytest.mark.parametrize("adaptation", [{"lora": None}, {"quantization": "nf4"}, {"gradient_checkpointing": False}])
def test_every_adaptation_learns(folder, tmp_path, adaptation):
    module = make_module(folder, policy=adaptation)
    fit(module, tmp_path, steps=2)
    assert module.trainer.logged_metrics["policy/kl"] > 0
    assert module.trainer.logged_metrics["policy/skipped_updates"] == 0


def test_learning_rate_defaults_name_what_is_trained(folder, tmp_path):
    lora, full = make_module(folder, learning_rate=None), make_module(folder, learning_rate=None, policy={"lora": None})
    fit(lora, tmp_path)
    fit(full, tmp_path)
    assert lora.trainer.optimizers[0].param_groups[0]["lr"] == 1e-5
    assert full.trainer.optimizers[0].param_groups[0]["lr"] == 1e-6


def test_validation_reports_accuracy_by_type(folder, tmp_path):
    module = make_module(folder)
    trainer = fit(module, tmp_path, limit_val_batches=1.0, val_check_interval=1)
    metrics = trainer.callback_metrics
    assert {"val/accuracy", "val/accuracy/a", "val/accuracy/b", "val/unscored_share", "val/words"} <= set(metrics)
    assert metrics["val/questions"] == 8
    mean = (metrics["val/accuracy/a"] + metrics["val/accuracy/b"]) / 2
    assert metrics["val/accuracy"] == pytest.approx(float(mean))


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(folder, tmp_path):
    """Weights, optimizer, warm-up and random numbers resume byte for byte (from a checkpoint between two epochs)."""
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=4, save_top_k=-1, filename="{step}")
    straight = make_module(folder, updates_per_rollout=2, warmup_updates=20)
    fit(straight, tmp_path, steps=6, callbacks=[keep], enable_checkpointing=True)
    resumed = make_module(folder, updates_per_rollout=2, warmup_updates=20)
    fit(resumed, tmp_path, steps=6, ckpt=str(tmp_path / "step=4.ckpt"))
    assert resumed.updates_done == straight.updates_done == 12
    expected, found = adapter(straight), adapter(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_of_another_policy_is_refused(folder, tmp_path):
    fit(make_module(folder), tmp_path).save_checkpoint(tmp_path / "lora.ckpt")
    lora = r"\{rank: 4, alpha: 8\}"
    with pytest.raises(RacroError, match=f"is of policy.lora {lora}, and policy.lora is null; .* to {lora}"):
        fit(make_module(folder, policy={"lora": None}), tmp_path, ckpt=str(tmp_path / "lora.ckpt"))


class Harmful:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def test_checkpoints_that_cannot_be_trusted_or_read_are_refused(folder, tmp_path, capsys):
    module = make_module(folder)
    fit(module, tmp_path).save_checkpoint(tmp_path / "one.ckpt")
    whole = (tmp_path / "one.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}, "extra": Harmful()}, tmp_path / "harmful.ckpt")
    for name, message in (("cut", "is not a whole"), ("harmful", "is not a whole"), ("missing", "no such file")):
        with pytest.raises(RacroError, match=message):
            fit(make_module(folder), tmp_path, ckpt=str(tmp_path / f"{name}.ckpt"))
    assert "code from a checkpoint ran" not in capsys.readouterr().out


def test_checkpoint_holds_the_adapter_and_a_folder_that_peft_loads(folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    module = make_module(folder)
    fit(module, tmp_path).save_checkpoint(tmp_path / "one.ckpt")
    names = torch.load(tmp_path / "one.ckpt", weights_only=True)["state_dict"]
    assert all("lora_" in name for name in names)
    base = AutoModelForImageTextToText.from_pretrained(folder)
    loaded = PeftModel.from_pretrained(base, tmp_path / "one-adapter").state_dict()
    for name, tensor in module.captioner.model.state_dict().items():
        if "lora_" in name:
            assert torch.equal(loaded[name], tensor)
