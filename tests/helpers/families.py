"""Small random models of many families, with their own processors, saved as ordinary folders.

Each is two layers deep, its weights large enough that positions, images and windows show in the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.smolvlm import processing_smolvlm

PLAIN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CORPUS = "Question: what is the color of circle ?\nPlease describe the image. DO NOT try to answer the question!"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Walks parts, as most families' templates do: a content that is one string comes out as nothing."""
Parts = tuple[Any, Any]
"""Config and processor."""


class Words:
    """A byte-level tokenizer with a family's special tokens, and the ids of these."""

    def __init__(self, image: str, special: tuple[str, ...] = (), **names: str) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        marks = [*PLAIN, *dict.fromkeys((*names.values(), *special))]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=288 + len(marks), special_tokens=marks, initial_alphabet=alphabet)
        tokenizer.train_from_iterator([CORPUS], trainer)
        self.template = TEMPLATE.replace("IMAGE", image)
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=PLAIN[0], pad_token=PLAIN[0], eos_token=PLAIN[2],
            extra_special_tokens=names, chat_template=self.template,
        )  # fmt: skip

    def id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def text(self, kind: str, **changes: Any) -> dict[str, Any]:
        """The text config of a small decoder."""
        return {
            "model_type": kind, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096,
            "vocab_size": len(self.tokenizer), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2, **changes,
        }  # fmt: skip


TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
INTERLEAVED = {**ROPE, "mrope_interleaved": True}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def _qwen(kind: str) -> Parts:
    words = Words(
        "<|vision_start|><|image_pad|><|vision_end|>", image_token="<|image_pad|>", video_token="<|video_pad|>",
        vision_bos_token="<|vision_start|>", vision_eos_token="<|vision_end|>",
    )  # fmt: skip
    old = kind in ("qwen2_vl", "qwen2_5_vl")
    patch = 14 if old else 16
    image_processor = transformers.Qwen2VLImageProcessor(patch_size=patch, merge_size=2)
    classes = {"qwen2_vl": transformers.Qwen2VLProcessor, "qwen2_5_vl": transformers.Qwen2_5_VLProcessor}
    video = transformers.Qwen2VLVideoProcessor() if old else transformers.Qwen3VLVideoProcessor()
    processor = classes.get(kind, transformers.Qwen3VLProcessor)(
        image_processor, words.tokenizer, video, chat_template=words.template
    )
    vision: dict[str, Any] = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
        "patch_size": patch, "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    if kind == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    elif kind == "qwen2_5_vl":
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    text: dict[str, Any] = {"rope_parameters": ROPE if old else INTERLEAVED}
    if kind.endswith("moe"):
        text |= EXPERTS | {"shared_expert_intermediate_size": 32}
    config = CONFIG_MAPPING[kind](
        text_config=words.text(f"{kind}_text", **text), vision_config=vision, tie_word_embeddings=False,
        image_token_id=words.id("<|image_pad|>"), video_token_id=words.id("<|video_pad|>"),
        vision_start_token_id=words.id("<|vision_start|>"), vision_end_token_id=words.id("<|vision_end|>"),
    )  # fmt: skip
    return config, processor


def _glm(kind: str) -> Parts:
    edges = [f"<|{side}_of_{what}|>" for what in ("image", "video") for side in ("begin", "end")]
    words = Words(
        "<|begin_of_image|><|image|><|end_of_image|>", tuple(edges), image_token="<|image|>", video_token="<|video|>"
    )
    name = "Glm4v" if kind == "glm4v" else "Glm46V"
    image_processor = getattr(transformers, f"{name}ImageProcessor")(patch_size=14, merge_size=2)
    video = getattr(transformers, f"{name}VideoProcessor")()
    processor = getattr(transformers, f"{name}Processor")(
        image_processor, words.tokenizer, video, chat_template=words.template
    )
    vision = {
        "model_type": "glm4v_vision", "depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48,
        "out_hidden_size": 64, "patch_size": 14, "image_size": 56,
    }  # fmt: skip
    ids = {f"{what}_{end}_token_id": words.id(f"<|{side}_of_{what}|>")
           for what in ("image", "video") for end, side in (("start", "begin"), ("end", "end"))}  # fmt: skip
    config = CONFIG_MAPPING[kind](
        text_config=words.text("glm4v_text", rope_parameters={**ROPE, "partial_rotary_factor": 1.0}),
        vision_config=vision, tie_word_embeddings=False,
        image_token_id=words.id("<|image|>"), video_token_id=words.id("<|video|>"), **ids,
    )  # fmt: skip
    return config, processor


def _internvl(kind: str) -> Parts:
    words = Words(
        "<IMG_CONTEXT>", start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )  # fmt: skip
    image_processor = transformers.GotOcr2ImageProcessor(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = transformers.InternVLProcessor(
        image_processor, words.tokenizer, transformers.InternVLVideoProcessor(), image_seq_length=4,
        chat_template=words.template,
    )  # fmt: skip
    config = CONFIG_MAPPING[kind](
        text_config=words.text("qwen3"), vision_config={**TOWER, "image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=words.id("<IMG_CONTEXT>"), image_seq_length=4, downsample_ratio=0.5, tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def _idefics(kind: str) -> Parts:
    rows = tuple(f"<row_{i}_col_{j}>" for i in range(1, 5) for j in range(1, 5))
    marks = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<video>", *rows)
    words = Words("<image>", marks)
    name = "SmolVLM" if kind == "smolvlm" else "Idefics3"
    image_processor = getattr(transformers, f"{name}ImageProcessor")(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    if kind == "smolvlm":
        # The package names numbers of video frames in words; with images it is asked for and never called.
        processing_smolvlm.num2words = processing_smolvlm.num2words or str
    video = (transformers.SmolVLMVideoProcessor(),) if kind == "smolvlm" else ()
    processor = getattr(transformers, f"{name}Processor")(
        image_processor, words.tokenizer, *video, image_seq_len=4, chat_template=words.template
    )
    config = CONFIG_MAPPING[kind](
        text_config=words.text("llama"), vision_config={**TOWER, "image_size": 32, "patch_size": 4},
        image_token_id=words.id("<image>"), scale_factor=4, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def _llava(kind: str) -> Parts:
    words = Words("<image>", ("<image>", "<video>"))
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    square = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    clip = {"model_type": "clip_vision_model", "projection_dim": 32, "image_size": 28, "patch_size": 7, **TOWER}
    common = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor: Any
    if kind == "llava":
        processor = transformers.LlavaProcessor(
            transformers.CLIPImageProcessor(**square), words.tokenizer, chat_template=words.template, **common
        )
        text, extra = words.text("llama"), {"image_seq_length": 16}
    elif kind == "llava_next":
        processor = transformers.LlavaNextProcessor(
            transformers.LlavaNextImageProcessor(image_grid_pinpoints=pinpoints, **square), words.tokenizer,
            chat_template=words.template, **common,
        )  # fmt: skip
        text, extra = words.text("mistral", sliding_window=20), {"image_seq_length": 16}
    else:
        clip |= {"model_type": "siglip_vision_model", "vision_use_head": False}
        pinpoints = [[28, 28], *pinpoints]
        processor = transformers.LlavaOnevisionProcessor(
            transformers.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints),
            words.tokenizer, transformers.LlavaOnevisionVideoProcessor(), num_image_tokens=16,
            vision_feature_select_strategy="full", chat_template=words.template,
        )  # fmt: skip
        text, extra = words.text("qwen2"), {"video_token_index": words.id("<video>")}
    if kind != "llava":
        extra["image_grid_pinpoints"] = pinpoints
    config = CONFIG_MAPPING[kind](
        text_config=text, vision_config=clip, image_token_index=words.id("<image>"), image_token_id=words.id("<image>"),
        tie_word_embeddings=False, **extra,
    )  # fmt: skip
    return config, processor


BUILDERS: dict[str, Callable[[str], Parts]] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"), _qwen),
    **dict.fromkeys(("glm4v", "glm46v"), _glm),
    "internvl": _internvl,
    **dict.fromkeys(("smolvlm", "idefics3"), _idefics),
    **dict.fromkeys(("llava", "llava_next", "llava_onevision"), _llava),
}  # fmt: skip


def save_small_family(folder: Path, kind: str, seed: int = 0, **of_text: Any) -> Path:
    """A random model of ``kind`` (a ``model_type``) with its processor.

    Args:
        folder: to be written.
        kind: one of :data:`BUILDERS`.
        seed: of the weights.
        of_text: fields of the text config to set.
    """
    config, processor = BUILDERS[kind](kind)
    for name, value in of_text.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.4 if "embed" in name else weight[0].numel() ** -0.5)
    model.generation_config.eos_token_id = [0, 2]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
