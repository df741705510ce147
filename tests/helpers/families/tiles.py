"""Families that cut images into tiles, or scale them to one size, under causal attention."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.smolvlm import processing_smolvlm

from tests.helpers.families.words import TOWER, Parts, Words


def internvl(kind: str) -> Parts:
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


def idefics(kind: str) -> Parts:
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


def llava(kind: str) -> Parts:
    words = Words("<image>", ("<image>", "<video>"))
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    square = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    clip = {"model_type": "clip_vision_model", "projection_dim": 32, "image_size": 28, "patch_size": 7, **TOWER}
    common = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor: Any
    if kind in ("llava", "vipllava"):
        processor = transformers.LlavaProcessor(
            transformers.CLIPImageProcessor(**square), words.tokenizer, chat_template=words.template, **common
        )
        text, extra = words.text("llama"), {"image_seq_length": 16}
        if kind == "vipllava":
            text, extra = words.text("llama", attention_dropout=0.3), {"vision_feature_layers": [-1, -2]}
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
    if kind not in ("llava", "vipllava"):
        extra["image_grid_pinpoints"] = pinpoints
    config = CONFIG_MAPPING[kind](
        text_config=text, vision_config=clip, image_token_index=words.id("<image>"), image_token_id=words.id("<image>"),
        tie_word_embeddings=False, **extra,
    )  # fmt: skip
    return config, processor
