"""What is configured on resuming is what runs, or is refused: field by field, as docs/resume.md says in its table."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from racro_pl.data.datamodule import RacroDataModule
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.reward import GainScorer, SeveralReasoners
from racro_pl.reward.scorer import Scorer
from racro_pl.rollout import TransformersEngine, VllmEngine
from racro_pl.training import module as module_file
from racro_pl.training.callbacks.caption_watch import CaptionWatch
from racro_pl.training.callbacks.learning_report import LearningReport
from racro_pl.training.checkpointing.callback import RunCheckpoint
from racro_pl.training.module import RacroModule
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import RacroError
from tests.fakes.chat_templates import QWEN3, use_template
from tests.fakes.models import save_small_model
from tests.fakes.reasoners import ScriptedReasoner
from tests.helpers.families import save_small_family
from tests.unit.training.conftest import adapter, by_caption, fit, make_module

PAGE = (Path(__file__).parents[3] / "docs/resume.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([^`]+)`: ((?:`[^`]+` ?)+)\| (applies|refused|is the checkpoint's)", re.MULTILINE)


def table() -> dict[str, str]:
    """What the page says of each field: "section.field" to "applies", "refused" or "is the checkpoint's"."""
    rows = [
        (f"{section}.{field}", verdict)
        for section, fields, verdict in ROW.findall(PAGE)
        for field in fields.replace("`", "").split()
    ]
    assert len(rows) == len(dict(rows)), "a field stands in two rows"
    return dict(rows)


def parameters(*classes: type) -> set[str]:
    """Names of the constructors' arguments."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = [parameter for each in classes for parameter in inspect.signature(each).parameters.values()]
    return {parameter.name for parameter in found if parameter.kind not in kinds}


FIELDS = {
    "model.objective": parameters(ObjectiveSettings),
    "model.policy": parameters(PolicySettings) - {"lora"} | {f"lora.{name}" for name in parameters(LoraSettings)},
    "model.rollout": parameters(TransformersEngine, VllmEngine),
    "model.reward": parameters(Scorer, GainScorer, SeveralReasoners),
    "data": parameters(RacroDataModule),
    "trainer": parameters(Trainer),
    "LearningReport": parameters(LearningReport),
    "CaptionWatch": parameters(CaptionWatch),
    "checkpoint": parameters(RunCheckpoint),
    "fit": {"seed_everything", "threads", "name", "runs"},
}


@pytest.mark.parametrize("section", FIELDS)
def test_the_table_has_every_field_and_no_other(section):
    listed = {name.removeprefix(f"{section}.") for name in table() if name.startswith(f"{section}.")}
    assert listed == FIELDS[section]


# ---------------------------------------------------------------------- one checkpoint, resumed with other settings


def resume(module: RacroModule, checkpoint: Path, root: Path, steps: int = 0, **trainer: Any) -> Trainer:
    return fit(module, root, steps=2 + steps, ckpt=str(checkpoint), **trainer)


def test_a_checkpoint_holds_nothing_but_what_the_page_says(folder, checkpoint):
    """Whatever else is put into one has to find its place in the table."""
    found = torch.load(checkpoint, weights_only=True)
    assert set(found) - {"racro_adapter_config", "racro_origin", "racro_settings", "racro_seed", "racro_spent"} == {
        "state_dict", "optimizer_states", "racro_updates_done", "epoch", "global_step", "loops", "callbacks",
        "lr_schedulers", "pytorch-lightning_version",
    }  # fmt: skip
    assert found["lr_schedulers"] == []
    assert set(found["callbacks"]) == set()
    assert set(found["optimizer_states"][0]["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


OPTIMIZER = {
    "learning_rate": 0.05, "warmup_updates": 7, "betas": (0.3, 0.7), "weight_decay": 0.4, "max_grad_norm": 1e-3,
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "loss": "dapo", "clip_low": 0.05, "clip_high": 0.4, "dual_clip": 2.0, "kl_coefficient": 0.5, "kl": "k2",
    "importance": "sequence", "importance_cap": 4.0, "caption_penalty": 0.3, "caption_judge": "rule",
    "learning_rate_schedule": "linear", "answer_weight": 0.5, "answer_kl_coefficient": 0.2, "answer_clip_high": 0.3,
    "updates_per_rollout": 2, "micro_batch_size": 4, "refill_rounds": 1, "sample_ahead": True,
}  # fmt: skip


@pytest.mark.parametrize("field", sorted(FIELDS["model.objective"] - {"name"}))
def test_an_objective_setting_applies(folder, checkpoint, tmp_path, lines, field):
    """The restored run holds the new value, and says that it is new."""
    assert table()[f"model.objective.{field}"] == "applies"
    value = {**OPTIMIZER, **OTHERS}[field]
    module = make_module(folder, **{field: value})
    optimizer = resume(module, checkpoint, tmp_path).optimizers[0]
    assert getattr(module.objective, field) == value
    (line,) = lines
    assert f"objective.{field} is {value!r} (was " in line
    expected = ObjectiveSettings(**({"learning_rate": 1e-2} | ({field: value} if field in OPTIMIZER else {})))
    group = optimizer.param_groups[0]
    assert (group["betas"], group["weight_decay"]) == (expected.betas, expected.weight_decay)
    assert module.updates_done == 2
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}
    rate = expected.learning_rate * min(1, 3 / (expected.warmup_updates + 1))
    over = field == "learning_rate_schedule"  # no step is left, and the line ends at zero
    assert module.learning_rate == pytest.approx(0 if over else rate)


class Arithmetic(Callback):
    """Does the first update of a resumption by hand, in float64, and compares."""

    def __init__(self, lr: float, betas: tuple[float, float], decay: float, norm: float) -> None:
        self.lr, self.betas, self.decay, self.norm = lr, betas, decay, norm
        self.largest = 0.0
        self.length = 0.0

    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        optimizer.register_step_pre_hook(lambda *_: self.before(optimizer))
        optimizer.register_step_post_hook(lambda *_: self.after(optimizer))

    def before(self, optimizer):
        self.expected = []
        self.length = float(torch.cat([p.grad.flatten() for p in optimizer.param_groups[0]["params"]]).norm())
        first, second = self.betas
        for weight in optimizer.param_groups[0]["params"]:
            state, gradient = optimizer.state[weight], weight.grad.double()
            count = float(state["step"]) + 1
            mean = first * state["exp_avg"].double() + (1 - first) * gradient
            square = second * state["exp_avg_sq"].double() + (1 - second) * gradient**2
            step = mean / (1 - first**count) / ((square / (1 - second**count)).sqrt() + 1e-8)
            self.expected.append(weight.detach().double() * (1 - self.lr * self.decay) - self.lr * step)

    def after(self, optimizer):
        for weight, expected in zip(optimizer.param_groups[0]["params"], self.expected, strict=True):
            self.largest = max(self.largest, float((weight.detach() - expected).abs().max()))


@pytest.mark.parametrize("field", OPTIMIZER)
def test_the_first_update_is_made_with_the_new_setting_and_the_old_moments(folder, checkpoint, tmp_path, field):
    settings = ObjectiveSettings(**{"learning_rate": 1e-2, field: OPTIMIZER[field]})
    rate = settings.learning_rate * min(1.0, 3 / (settings.warmup_updates + 1))
    by_hand = Arithmetic(rate, settings.betas, settings.weight_decay, settings.max_grad_norm)
    module = make_module(folder, **{field: OPTIMIZER[field]})
    trainer = resume(module, checkpoint, tmp_path, steps=1, callbacks=[by_hand])
    assert by_hand.length > 0
    assert by_hand.largest < 1e-6  # float32 weights of size 1; an update is 1e-3 or more
    assert float(trainer.logged_metrics["learning_rate"]) == pytest.approx(rate)
    if field == "max_grad_norm":
        assert by_hand.length == pytest.approx(1e-3, rel=1e-3)


def test_loss_and_rollout_of_the_first_step_are_the_new_ones(folder, checkpoint, tmp_path, monkeypatch, lines):
    variants, temperatures = [], set()
    loss = module_file.grpo_loss
    monkeypatch.setattr(module_file, "grpo_loss", lambda *args: variants.append(args[-1]) or loss(*args))
    new = {name: OTHERS[name] for name in ("clip_low", "clip_high", "dual_clip", "kl_coefficient", "kl", "loss")}
    module = make_module(folder, updates_per_rollout=2, micro_batch_size=6, **new)
    module.engine = TransformersEngine(group_size=6, max_new_tokens=5, temperature=0.5, questions_per_batch=2)

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            logprobs = pl_module.captioner.logprobs
            pl_module.captioner.logprobs = lambda *args: temperatures.add(args[-1]) or logprobs(*args)

    resume(module, checkpoint, tmp_path, steps=1, callbacks=[Watch()])
    assert variants == [ObjectiveSettings(**new).variant] * 4  # one group at a time, two for each update
    assert module.updates_done == 4
    assert temperatures == {0.5}
    assert [rollout.token_ids.shape[0] for rollout, _ in module.last_step] == [6] * 4
    assert max(rollout.token_ids.shape[1] for rollout, _ in module.last_step) == 5
    assert "rollout.group_size is 6 (was 4)" in lines[0]
    assert "rollout.temperature is 0.5 (was 1.0)" in lines[0]


@pytest.mark.parametrize("changes", [{"votes": 3}, {"shuffle": True}, {"max_unscored_share": 0.1}], ids=str)
def test_a_reward_setting_applies(folder, checkpoint, tmp_path, lines, changes):
    (name, value), *_ = changes.items()
    assert table()[f"model.reward.{name}"] == "applies"
    module = make_module(folder)
    module.reward = module.scorer = Scorer(ScriptedReasoner(by_caption), cache="off", **changes)
    resume(module, checkpoint, tmp_path, steps=1)
    assert getattr(module.scorer, name) == value
    assert f"reward.{name} is {value!r} (was " in lines[0]
    answers = [len(texts) for _, rewards in module.last_step for texts in rewards.answers if texts]
    assert set(answers) == {changes.get("votes", 1)}


def test_unchanged_settings_are_not_worth_a_line(folder, checkpoint, tmp_path, lines):
    resume(make_module(folder), checkpoint, tmp_path)
    assert lines == []


# ---------------------------------------------------------------------- what is refused


REFUSED = {
    "objective.name": ({"name": "vpo", "caption_judge": "rule"}, "objective.name is 'vpo', .* of a run with 'cro'"),
    "policy.lora.rank": (
        {"policy": {"lora": LoraSettings(8, 8)}},
        r"is of policy.lora \{rank: 4, alpha: 8\}, and policy.lora is \{rank: 8, alpha: 8\}; .* set policy.lora to "
        r"\{rank: 4, alpha: 8\}",
    ),
    "policy.lora.alpha": ({"policy": {"lora": LoraSettings(4, 16)}}, r"policy.lora is \{rank: 4, alpha: 16\}"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_setting_that_the_checkpoint_was_made_with_is_refused(folder, checkpoint, tmp_path, field):
    changes, message = REFUSED[field]
    assert table()[f"model.{field}"] == "refused"
    with pytest.raises(RacroError, match=message) as error:
        resume(make_module(folder, **changes), checkpoint, tmp_path)
    assert "\n" not in str(error.value)


def test_another_tower_to_train_is_refused_by_the_tensors_names(folder, tmp_path):
    full = {"lora": None, "freeze_vision": False}
    fit(make_module(folder, policy=full), tmp_path).save_checkpoint(tmp_path / "all.ckpt")
    with pytest.raises(RacroError, match=r"trained tensors are only in the checkpoint, e\.g\. .*visual.*freeze_vision"):
        fit(make_module(folder, policy={"lora": None}), tmp_path, ckpt=str(tmp_path / "all.ckpt"))


def test_the_base_model_is_known_by_its_weights_not_by_its_folder(folder, checkpoint, tmp_path, lines):
    same = save_small_model(tmp_path / "moved", "qwen2_5_vl")
    resume(make_module(same), checkpoint, tmp_path)
    assert "policy.path is" in lines[0]
    resume(make_module(folder, policy={"dtype": "bfloat16"}), checkpoint, tmp_path)
    other = save_small_model(tmp_path / "other", "qwen2_5_vl", seed=1)
    with pytest.raises(RacroError, match="holds other weights than the model that the checkpoint was trained on"):
        resume(make_module(other), checkpoint, tmp_path)


def test_a_base_with_an_adapter_merged_into_it_is_another(folder, checkpoint, tmp_path):
    """Norms, biases and embeddings are then the same; matrices are not, unless they are quantised."""
    module = make_module(folder)
    resume(module, checkpoint, tmp_path, steps=1)
    merged = save_small_model(tmp_path / "merged", "qwen2_5_vl")
    module.captioner.model.merge_and_unload().save_pretrained(merged)
    with pytest.raises(RacroError, match="holds other weights"):
        resume(make_module(merged), checkpoint, tmp_path)


def test_the_start_adapter_is_part_of_the_run(folder, checkpoint, tmp_path):
    stage = {"adapter": str(checkpoint)}
    fit(make_module(folder, policy=dict(stage)), tmp_path, steps=2).save_checkpoint(tmp_path / "second.ckpt")
    resume(make_module(folder, policy=dict(stage)), tmp_path / "second.ckpt", tmp_path)
    with pytest.raises(RacroError, match="policy.adapter is null, the checkpoint is of a run with .*two-adapter"):
        resume(make_module(folder), tmp_path / "second.ckpt", tmp_path)
    other = {"adapter": str(tmp_path / "second.ckpt")}
    with pytest.raises(RacroError, match="policy.adapter is .*second-adapter, the checkpoint is of a run with"):
        resume(make_module(folder, policy=other), tmp_path / "second.ckpt", tmp_path)


def test_whether_experts_are_adapted_is_part_of_the_run(tmp_path):
    folder = save_small_family(tmp_path / "mixture", "qwen3_vl_moe")
    fit(make_module(folder), tmp_path).save_checkpoint(tmp_path / "one.ckpt")
    assert table()["model.policy.lora.experts"] == "refused"
    experts = {"lora": LoraSettings(4, 8, experts=True)}
    with pytest.raises(
        RacroError, match=r"rank: 4, alpha: 8\}, and policy\.lora is \{rank: 4, alpha: 8, experts: true\}"
    ):
        resume(make_module(folder, policy=experts), tmp_path / "one.ckpt", tmp_path)


HELD = {
    "quantization": "nf4", "dtype": "bfloat16", "image_cache_mib": 1, "gradient_checkpointing": False,
    "min_pixels": 6272, "max_pixels": 6272, "thinking": False,
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_how_the_base_is_held_and_looked_at_applies(folder, checkpoint, tmp_path, lines, name):
    assert table()[f"model.policy.{name}"] == "applies"
    if name == "thinking":  # with the same weights under a template that has the switch
        folder = Path(shutil.copytree(folder, tmp_path / "switch"))
        use_template(folder, QWEN3)
    module = make_module(folder, policy={name: HELD[name]})
    resume(module, checkpoint, tmp_path)
    assert f"policy.{name} is {HELD[name]!r} (was " in lines[0]
    held = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, held[tensor_name]) for tensor_name, tensor in adapter(module).items())


def test_every_policy_field_has_a_test():
    refused = {name.removeprefix("policy.") for name in REFUSED if name.startswith("policy.")}
    assert set(HELD) | refused | {"path", "adapter", "freeze_vision", "lora.experts"} == FIELDS["model.policy"]
