"""Build the captioner: base weights, 4-bit or not, adapters or a reference copy, vision tower frozen."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import nn

from racro_pl.policy.adapters import TRAINED, find_adapter, start_from
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.families import Family, family_of
from racro_pl.policy.prompts import PromptEncoder, Wording
from racro_pl.text.captioner_prompt import captioner_messages
from racro_pl.types import RacroError


def load_encoder(settings: PolicySettings, wording: Wording = captioner_messages) -> PromptEncoder:
    """The prompt encoder alone: enough to count prompt tokens while data is built, without the weights.

    Args:
        settings: the ``policy`` section.
        wording: what questions are asked for, see :class:`PromptEncoder`.

    Raises:
        RacroError: there is no usable processor at ``settings.path``.
    """
    from transformers import AutoProcessor

    processor = _load(AutoProcessor.from_pretrained, settings.path, "a processor")
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise RacroError(
            f"policy.path {settings.path!r} has no image processor and tokenizer; expected a vision-language model"
        )
    return PromptEncoder(processor, settings.min_pixels, settings.max_pixels, wording)


def load_captioner(settings: PolicySettings, device: torch.device, encoder: PromptEncoder | None = None) -> Captioner:
    """Build the policy on ``device``, in train mode, with exactly its trainable parameters requiring gradients.

    Args:
        settings: the ``policy`` section.
        device: where the weights go; 4-bit weights are quantised there and cannot be moved afterwards.
        encoder: reuse one that :func:`load_encoder` built.

    Raises:
        RacroError: the folder is missing, incomplete, or of a family that is not supported; or the adapter to start
            from does not fit ``settings.lora``.
    """
    family = _family(settings)
    model = _load_base(settings, family, device)
    model.requires_grad_(False)
    reference = None
    if settings.lora is not None:
        model = _add_adapters(model, settings.lora, settings.adapter, family)
    else:
        reference = copy.deepcopy(model).eval()
        model.requires_grad_(True)
        if settings.freeze_vision:
            model.get_submodule(family.vision_prefix).requires_grad_(False)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    captioner = Captioner(model, encoder or load_encoder(settings), family, reference).to(device)
    # from_pretrained leaves eval mode, and Lightning does not change it: gradient checkpointing would be off.
    return captioner.train()


def probe_for_inference(settings: PolicySettings) -> None:
    """Everything of :func:`load_for_inference` that costs no weights: configuration, processor, adapter files.

    Raises:
        RacroError: as :func:`load_captioner`.
    """
    _family(settings)
    load_encoder(settings)
    if settings.adapter is not None:
        find_adapter(settings.adapter)


def load_for_inference(settings: PolicySettings, device: torch.device) -> Captioner:
    """Build a captioner that only writes: its adapter on where ``settings`` names one, nothing trainable, eval mode.

    Raises:
        RacroError: as :func:`load_captioner`.
    """
    family = _family(settings)
    model = _load_base(settings, family, device)
    if settings.adapter is not None:
        from peft import PeftModel

        folder = str(find_adapter(settings.adapter))
        model = PeftModel.from_pretrained(model, folder, is_trainable=False, autocast_adapter_dtype=True)
    model.requires_grad_(False)
    return Captioner(model, load_encoder(settings), family).to(device).eval()


def _family(settings: PolicySettings) -> Family:
    from transformers import AutoConfig

    return family_of(_load(AutoConfig.from_pretrained, settings.path, "a model config").model_type)


def _load_base(settings: PolicySettings, family: Family, device: torch.device) -> Any:
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": getattr(torch, settings.dtype), "device_map": {"": device}}
    if settings.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            # Both spellings: transformers matches the tower by its short name in some places, by its path in others.
            llm_int8_skip_modules=["lm_head", family.vision_prefix, family.vision_prefix.split(".")[-1]],
        )
    model = _load(AutoModelForImageTextToText.from_pretrained, settings.path, "model weights", **options)
    if settings.quantization == "nf4":
        keep_cpu_gradients(model)
    return model


def keep_cpu_gradients(model: nn.Module) -> None:
    """Switch off bitsandbytes' in-place repacking of 4-bit weights on CPUs with AVX512-BF16.

    After the first forward without gradient (every sampling), such a layer stays in a layout whose kernel has no
    backward: layers with a bias then raise, layers without one lose their gradient without a word.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _add_adapters(model: Any, lora: LoraSettings, adapter: str | None, family: Family) -> Any:
    from peft import LoraConfig, get_peft_model

    matched = [name for name, _ in model.named_modules() if re.fullmatch(family.lora_targets, name)]
    if not matched:
        raise RacroError(
            f"no layer of this {family.model_type} model matches {family.lora_targets!r}: nothing to adapt"
        )
    # Dropout stays 0: the log-probs of one caption must not differ between sampling, reference and loss.
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=family.lora_targets, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config, adapter_name=TRAINED, autocast_adapter_dtype=True)
    if adapter is not None:
        start_from(model, find_adapter(adapter), lora)
    return model


def _load(loader: Any, path: str, what: str, **options: Any) -> Any:
    """Call a ``from_pretrained`` without remote code and with safetensors only; say what is wrong in one line."""
    if "weights" in what:
        options["use_safetensors"] = True
    try:
        return loader(path, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RacroError(
            f"policy.path {path!r}: cannot load {what} ({first_line}). Expected a folder (or hub id) of an "
            "image-text-to-text model with config.json, safetensors weights and processor files"
        ) from error
