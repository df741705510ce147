"""Which settings may differ when a run is resumed, and what its checkpoint keeps in order to tell.

One rule, of which docs/resume.md has the table: **a setting applies from the first step after the checkpoint; it is
refused where what the checkpoint holds was made with another value.** What a checkpoint holds are trained weights,
AdamW's moments, counts, and the position in the order of the questions (``RacroDataModule`` looks after that one).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from racro_pl.policy.adapters import START
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.training.checkpointing.io import ADAPTER_KEY, adapter_config_json
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import RacroError

SETTINGS_KEY = "racro_settings"
"""Checkpoint entry: the settings of the run that wrote it, by their names in the configuration."""
ORIGIN_KEY = "racro_origin"
"""Checkpoint entry: digests of the model that the run began with."""
_EMBEDDINGS = 64
"""Rows of the embedding that the digest of a base model takes in."""
_BOOKKEEPING = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision",
    "target_modules", "task_type",
}  # fmt: skip
"""Fields of a PEFT configuration that do not change the function. Which layers are adapted, the tensors' names say."""


def origin_of(captioner: Captioner) -> dict[str, str | None]:
    """Digests of the model that a run begins with, which is also the reference of its KL term.

    They do not depend on the device, nor on whether the dtype is float32 or bfloat16.

    Args:
        captioner: the policy, not sharded yet.

    Returns:
        SHA-256 by name. ``base``: of the base model's vectors (norms, biases) and some rows of its embedding, which
        no quantisation touches. ``layers``: of the first row of each matrix; None where they are quantised.
        ``start``: of the adapter that the run starts from; None without one.
    """
    base = captioner.parts()[-1]
    own = [tensor for name, tensor in base.named_parameters() if "lora_" not in name]
    vectors = [tensor for tensor in own if tensor.ndim == 1]
    rows = base.get_input_embeddings().weight[:_EMBEDDINGS]
    quantised = not all(tensor.is_floating_point() for tensor in own)
    start = [tensor for name, tensor in captioner.named_parameters() if f".{START}." in name]
    return {
        "base": _digest([*vectors, rows], torch.bfloat16),
        "layers": None if quantised else _digest([tensor[:1] for tensor in own if tensor.ndim > 1], torch.bfloat16),
        "start": _digest(start, torch.float32) if start else None,
    }


def check_weights(
    policy: PolicySettings,
    adapter: Any,
    tensors: Mapping[str, Tensor],
    own_origin: Mapping[str, str | None],
    checkpoint: Mapping[str, Any],
) -> None:
    """Refuse trained weights that mean something else in this policy. Also for validation.

    Args:
        adapter: the PEFT configuration of the trained adapter; None in full fine-tuning.
        tensors: what is trained, by name.
        own_origin: :func:`origin_of` this run's captioner.

    Raises:
        RacroError: rank, alpha, adapted layers, sizes or the base model differ.
    """
    found = json.loads(checkpoint[ADAPTER_KEY]) if ADAPTER_KEY in checkpoint else None
    own = None if adapter is None else json.loads(adapter_config_json(adapter))
    _check_adapter(found, own)
    _check_tensors(checkpoint["state_dict"], tensors)
    origin = checkpoint.get(ORIGIN_KEY)
    if origin is None:
        return
    # Of matrices that one run has in 4 bits and the other whole, nothing can be said.
    compared = [name for name in ("base", "layers") if None not in (origin[name], own_origin[name])]
    if any(origin[name] != own_origin[name] for name in compared):
        before = checkpoint.get(SETTINGS_KEY, {}).get("policy.path", "unknown")
        raise RacroError(
            f"policy.path {policy.path!r} holds other weights than the model that the checkpoint was trained on (then "
            f"at {before!r}); set policy.path to the present path of that model"
        )


def run_settings(
    policy: PolicySettings,
    objective: ObjectiveSettings,
    peak_rate: float,
    rollout: Any,
    reward: Any,
    trainer: Trainer,
) -> dict[str, Any]:
    """Settings by their names, as plain values; the objective's resolved, and of the trainer's where the run ends."""
    found = {f"policy.{name}": value for name, value in asdict(policy).items()}
    found |= {f"trainer.{name}": getattr(trainer, name) for name in ("max_steps", "max_epochs")}
    resolved = {**vars(objective), **objective.resolved(), "learning_rate": peak_rate}
    found |= {f"objective.{name}": value for name, value in resolved.items()}
    for name, part in (("rollout", rollout), ("reward", reward)):
        found |= _arguments(part, name)
    return found


def check_run(now: Mapping[str, Any], origin: Mapping[str, str | None], checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume as another run; name the settings that are other ones from here on.

    Args:
        now: :func:`run_settings` of this run.
        origin: :func:`origin_of` its captioner.

    Raises:
        RacroError: another objective, or another start adapter.
    """
    if SETTINGS_KEY not in checkpoint:
        rank_zero_info(
            "resume: the checkpoint says nothing of its run's settings (an older version wrote it); base model, start "
            "adapter, objective and the order of the questions could not be compared"
        )
        return
    before = checkpoint[SETTINGS_KEY]
    if before["objective.name"] != now["objective.name"]:
        raise RacroError(
            f"objective.name is {now['objective.name']!r}, the checkpoint is of a run with "
            f"{before['objective.name']!r}; another objective is another stage: begin a new run, with policy.adapter "
            "set to this checkpoint"
        )
    if checkpoint[ORIGIN_KEY]["start"] != origin["start"]:
        raise RacroError(
            f"policy.adapter is {now['policy.adapter'] or 'null'}, the checkpoint is of a run with "
            f"{before['policy.adapter'] or 'null'}: the model it started from, and the reference of its KL term; set "
            "policy.adapter to the same adapter, at its present path, or begin a new run"
        )
    changed = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
    if changed:
        listed = ", ".join(f"{name} is {now[name]!r} (was {before[name]!r})" for name in changed)
        rank_zero_info(f"resume: after step {checkpoint['global_step']} {listed}")


def configured_hyperparameters(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A pre-hook for ``Optimizer.load_state_dict``: moments from the checkpoint, all else from the configuration.

    torch would take learning rate, betas and weight decay from the checkpoint too.
    """
    groups = [
        own | {"params": saved["params"]}
        for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True)
    ]
    return state | {"param_groups": groups}


# ---------------------------------------------------------------------- inside


def _check_adapter(found: dict[str, Any] | None, own: dict[str, Any] | None) -> None:
    if _lora(found) != _lora(own):
        raise RacroError(
            f"the checkpoint is of policy.lora {_lora(found)}, and policy.lora is {_lora(own)}; a resumed run trains "
            f"what it began with: set policy.lora to {_lora(found)}, or begin a new run"
        )
    if found is None or own is None:
        return
    other = sorted(name for name in found.keys() & own.keys() - _BOOKKEEPING if found[name] != own[name])
    if other:
        listed = ", ".join(f"{name} {found[name]!r} (here {own[name]!r})" for name in other)
        raise RacroError(f"the checkpoint's adapter has {listed}; it was written by another program, which is refused")


def _lora(adapter: Mapping[str, Any] | None) -> str:
    if adapter is None:
        return "null"
    experts = ", experts: true" if adapter.get("target_parameters") else ""
    return f"{{rank: {adapter['r']}, alpha: {adapter['lora_alpha']}{experts}}}"


def _check_tensors(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    strange, missing = (sorted(one.keys() - other.keys()) for one, other in ((found, own), (own, found)))
    if strange or missing:
        sides = [
            f"{len(names)} trained tensors are only in {where}, e.g. {names[0]}"
            for names, where in ((strange, "the checkpoint"), (missing, "this policy"))
            if names
        ]
        raise RacroError(
            f"{'; '.join(sides)}. Was the checkpoint written with another policy.path, or another freeze_vision?"
        )
    for name, tensor in own.items():
        if found[name].shape != tensor.shape:
            raise RacroError(
                f"{name} is {tuple(found[name].shape)} in the checkpoint and {tuple(tensor.shape)} in this policy; "
                "expected a checkpoint of the same model as policy.path"
            )
    if list(found) != list(own):
        # The optimizer's moments have numbers, not names.
        raise RacroError(
            "the checkpoint holds this policy's tensors in another order, so the optimizer's moments would go to wrong "
            "ones; resume with the version of transformers that it was written with"
        )


def _digest(tensors: Iterable[Tensor], dtype: torch.dtype) -> str:
    """Of the values alone: whatever the tensors are called, and in whatever order they come."""
    each = [tensor.detach().to("cpu", dtype).contiguous().view(torch.uint8).numpy().tobytes() for tensor in tensors]
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(one).digest() for one in each))).hexdigest()


def _arguments(part: Any, name: str) -> dict[str, Any]:
    """Class and plain arguments of a part, and of the parts that it was built from, as far as it keeps them."""
    if part is None or isinstance(part, (str, int, float)):
        return {name: part}
    if not type(part).__module__.startswith("racro_pl."):
        return {}
    found: dict[str, Any] = {name: type(part).__name__}
    for argument in inspect.signature(type(part)).parameters:
        if hasattr(part, argument):
            found |= _arguments(getattr(part, argument), f"{name}.{argument}")
    return found
