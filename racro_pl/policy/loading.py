"""Build the captioner: base weights, 4-bit or not, adapters or a reference copy, vision tower frozen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from racro_pl.policy.adapter_files import check_fit, read_adapter
from racro_pl.policy.adapters import TRAINED, find_adapter, put_on, start_from
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.families import FAMILIES, Family, family_of
from racro_pl.policy.memory.ledger import on_meta
from racro_pl.policy.prompts import PromptEncoder, PromptTemplate
from racro_pl.policy.structure import expert_names, head_name, lora_pattern, vision_names, vision_parameters
from racro_pl.policy.vision import ImageCache
from racro_pl.pretrained.folder import check_weights, fetch_folder, first_line
from racro_pl.pretrained.weights import check_vocabulary, load_config, load_whole
from racro_pl.terminal import get_logger
from racro_pl.text.captioner_prompt import captioner_messages
from racro_pl.types import RacroError

log = get_logger(__name__)


def load_encoder(settings: PolicySettings, prompt_template: PromptTemplate = captioner_messages) -> PromptEncoder:
    """The prompt encoder alone: enough to count prompt tokens while data is built, without the weights.

    Args:
        prompt_template: what questions are asked for, see :class:`PromptEncoder`.

    Raises:
        RacroError: there is no usable processor at ``settings.path``.
    """
    from transformers import AutoProcessor

    what = _what(settings)
    folder = fetch_folder(settings.path, what)
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a stranger's files can be wrong in any way
        if "num2words" in str(error):
            raise RacroError(
                f"{what}: its processor needs a package that is not installed: pip install 'racro-pl[smolvlm]'"
            ) from error
        raise RacroError(
            f"{what}: cannot load a processor ({first_line(error)}). Expected a folder (or hub id) of an "
            "image-text-to-text model with config.json, safetensors weights and processor files"
        ) from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise RacroError(f"{what} has no image processor and tokenizer; expected a vision-language model")
    limit = policy_family(settings).image_limit
    encoder = PromptEncoder(
        processor, settings.min_pixels, settings.max_pixels, prompt_template, what, limit, settings.thinking
    )
    encoder.check()
    return encoder


def _what(settings: PolicySettings) -> str:
    return f"policy.path {settings.path!r}"


def load_captioner(settings: PolicySettings, device: torch.device, encoder: PromptEncoder | None = None) -> Captioner:
    """Build the policy on ``device``, in train mode, with exactly its trainable parameters requiring gradients.

    Args:
        device: where the weights go; 4-bit weights are quantised there and cannot be moved afterwards.
        encoder: reuse one that :func:`load_encoder` built.

    Raises:
        RacroError: the folder is missing, incomplete, or of a family that is not supported; or the adapter to start
            from does not fit ``settings.lora``.
    """
    policy_family(settings)  # before any weight is read
    model = _load_base(settings, device)
    return make_trainable(model, settings, device, encoder or load_encoder(settings))


def make_trainable(model: Any, settings: PolicySettings, device: torch.device, encoder: PromptEncoder) -> Captioner:
    """The second half of :func:`load_captioner`: freeze the base, put adapters on it or a reference beside it.

    Args:
        model: a transformers model of a supported family, with its weights on ``device``.
        settings, device, encoder: as there.
    """
    family = family_of(model.config.model_type)
    check_vocabulary(model, encoder.tokenizer, _what(settings))
    model.requires_grad_(False)
    reference = None
    if settings.lora is not None:
        model = _add_adapters(model, settings.lora, settings.adapter)
    else:
        reference = copy.deepcopy(model).eval()
        model.requires_grad_(True)
        if settings.freeze_vision:
            for parameter in vision_parameters(model):
                parameter.requires_grad_(False)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    cache = ImageCache(settings.image_cache_mib * 2**20) if settings.image_cache_mib else None
    captioner = Captioner(model, encoder, family, reference, cache).to(device)
    # from_pretrained leaves eval mode, and Lightning does not change it: gradient checkpointing would be off.
    return captioner.train()


def probe_for_inference(settings: PolicySettings) -> None:
    """Everything of :func:`load_for_inference` that costs no weights: configuration, processor, adapter files.

    Raises:
        RacroError: as :func:`load_captioner`.
    """
    what = _what(settings)
    config = load_config(settings.path, what)
    _family(config, what)
    load_encoder(settings)
    if Path(settings.path).is_dir():
        check_weights(Path(settings.path), what)
    if settings.adapter is not None:
        check_fit(read_adapter(find_adapter(settings.adapter)), on_meta(config))


def load_for_inference(settings: PolicySettings, device: torch.device) -> Captioner:
    """Build a captioner that only writes: its adapter on where ``settings`` names one, nothing trainable, eval mode.

    Raises:
        RacroError: as :func:`load_captioner`.
    """
    family = policy_family(settings)
    model = _load_base(settings, device)
    if settings.adapter is not None:
        model = put_on(model, find_adapter(settings.adapter))
    model.requires_grad_(False)
    encoder = load_encoder(settings)
    check_vocabulary(model, encoder.tokenizer, _what(settings))
    captioner = Captioner(model, encoder, family).to(device).eval()
    if captioner.plain_because is not None:
        log.warning("captions are written by transformers' own generate, one at a time: %s", captioner.plain_because)
    return captioner


def weight_bytes(settings: PolicySettings) -> int:
    """Size of a captioner's weights as they will lie in memory, from its config alone."""
    model = on_meta(load_config(settings.path, _what(settings)))
    # Of a 4-bit model the tower, the embeddings and the head stay as they are: about a byte each, all in all.
    width = 1 if settings.quantization == "nf4" else getattr(torch, settings.dtype).itemsize
    return sum(parameter.numel() for parameter in model.parameters()) * width


def policy_family(settings: PolicySettings) -> Family:
    """The family of the model at ``settings.path``, by its config alone.

    Raises:
        RacroError: there is no usable config, or it is not that of a vision-language model.
    """
    return _family(load_config(settings.path, _what(settings)), _what(settings))


def _family(config: Any, what: str) -> Family:
    from transformers import AutoModelForImageTextToText

    if type(config) not in AutoModelForImageTextToText._model_mapping or config.is_encoder_decoder:
        raise RacroError(
            f"{what}: model type {config.model_type!r} is not a captioner; expected a decoder-only model that "
            f"transformers' AutoModelForImageTextToText loads, such as {', '.join(sorted(FAMILIES))}"
        )
    return family_of(config.model_type)


def _load_base(settings: PolicySettings, device: torch.device) -> Any:
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    dtype = getattr(torch, settings.dtype)
    if device.type == "cpu" and dtype == torch.bfloat16 and not computes_bfloat16():
        log.warning(
            "this CPU has no instructions for bfloat16: matrix products take many times as long as in float32 "
            "(policy.dtype float32)"
        )
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}}
    if settings.quantization == "nf4":
        empty = on_meta(load_config(settings.path, _what(settings)))
        kept = [head_name(empty), *vision_names(empty)]
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # In both spellings: transformers matches short names in some places, paths in others.
            llm_int8_skip_modules=list(dict.fromkeys([*kept, *(name.split(".")[-1] for name in kept)])),
        )
    model = load_whole(AutoModelForImageTextToText, settings.path, _what(settings), **options)
    if settings.quantization == "nf4":
        keep_cpu_gradients(model)
    return model


def computes_bfloat16() -> bool:
    """Whether this CPU has kernels for bfloat16; without, a product took nine times as long as in float32."""
    return not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def keep_cpu_gradients(model: nn.Module) -> None:
    """Switch off bitsandbytes' in-place repacking of 4-bit weights on CPUs with AVX512-BF16.

    After the first forward without gradient (every sampling), such a layer stays in a layout whose kernel has no
    backward: layers with a bias then raise, layers without one lose their gradient without an error.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _add_adapters(model: Any, lora: LoraSettings, adapter: str | None) -> Any:
    from peft import LoraConfig, get_peft_model

    from racro_pl.policy.lora import fuse

    experts = expert_names(model) if lora.experts else None
    if experts == []:
        raise RacroError(
            f"policy.lora.experts is true, and {type(model).__name__} has no stacked experts; set it to false"
        )
    # Dropout stays 0: the log-probs of one caption must not differ between sampling, reference and loss.
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=lora_pattern(model),
        target_parameters=experts, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(model, config, adapter_name=TRAINED, autocast_adapter_dtype=True)
    if adapter is not None:
        start_from(model, find_adapter(adapter), lora)
    fuse(model)
    return model
