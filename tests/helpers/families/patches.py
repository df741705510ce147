"""Families whose images are flat patches with their grids: Qwen-VL and GLM-V."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.helpers.families.words import DELTA_NET, EXPERTS, INTERLEAVED, ROPE, Parts, Words


def qwen(kind: str) -> Parts:
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
    if kind.startswith("qwen3_5"):
        text |= DELTA_NET
        vision.pop("deepstack_visual_indexes")
    if kind.endswith("moe"):
        text |= EXPERTS | {"shared_expert_intermediate_size": 32}
    config = CONFIG_MAPPING[kind](
        text_config=words.text(f"{kind}_text", **text), vision_config=vision, tie_word_embeddings=False,
        image_token_id=words.id("<|image_pad|>"), video_token_id=words.id("<|video_pad|>"),
        vision_start_token_id=words.id("<|vision_start|>"), vision_end_token_id=words.id("<|vision_end|>"),
    )  # fmt: skip
    return config, processor


def glm(kind: str) -> Parts:
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
