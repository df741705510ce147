"""Write what was trained as a folder that transformers, peft and vLLM load."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from racro_pl.files import follow_umask, write_atomically
from racro_pl.policy.adapter_files import CONFIG, WEIGHTS, check_fit, read_adapter
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_encoder, load_for_inference
from racro_pl.policy.memory.ledger import on_meta
from racro_pl.pretrained.weights import load_config


def export_adapter(policy: PolicySettings, out: Path, base: str) -> None:
    """The PEFT folder, with the processor beside it.

    Args:
        policy: the adapter, and its base as this machine has it.
        out: an existing, empty folder.
        base: what others load the base by, for ``adapter_config.json``.
    """
    assert policy.adapter is not None
    encoder = load_encoder(policy)
    adapter = read_adapter(Path(policy.adapter))
    names, _ = check_fit(adapter, on_meta(load_config(policy.path, f"policy.path {policy.path!r}")))
    config, weights = (Path(policy.adapter) / name for name in (CONFIG, WEIGHTS))
    content = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
    if adapter.old_names:
        # Written again: other programs would look for the layers by today's names.
        content["target_modules"] = names
        save_file(adapter.read_tensors(), out / weights.name, metadata={"format": "pt"})
    else:
        shutil.copyfile(weights, out / weights.name)
    write_atomically(out / config.name, json.dumps(content, indent=2, sort_keys=True) + "\n")
    encoder.processor.save_pretrained(str(out))
    follow_umask(out)


def export_merged(policy: PolicySettings, out: Path, dtype: Literal["bfloat16", "float32"]) -> None:
    """A whole model: base weights plus adapter, added in float32 and stored as ``dtype``, with its processor.

    Never into 4-bit weights: an adapter trained on an NF4 base is added to the base as published, which differs from
    what it was trained on by the rounding of NF4.
    """
    whole = replace(policy, quantization="none", dtype="float32")
    captioner = load_for_inference(whole, torch.device("cpu"))
    model = captioner.model.merge_and_unload() if policy.adapter is not None else captioner.model
    # The base's own way to sample (Qwen's penalises repetition) was off in training, and servers would follow it.
    model.generation_config = GenerationConfig(
        eos_token_id=sorted(captioner.eos_ids),
        **{name: getattr(model.generation_config, name, None) for name in ("bos_token_id", "pad_token_id")},
    )
    model.to(getattr(torch, dtype)).save_pretrained(str(out))
    captioner.encoder.processor.save_pretrained(str(out))
    follow_umask(out)
