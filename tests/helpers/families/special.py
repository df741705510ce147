"""Families with two-way attention among image tokens, and with recurrent layers."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.helpers.families.words import DELTA_NET, TOWER, Parts, Words

MIXED: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 20}
SIGLIP = {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7, "vision_use_head": False, **TOWER}


def mistral3(kind: str) -> Parts:
    words = Words("[IMG]", ("[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    image_processor = transformers.PixtralImageProcessor(patch_size=7, size={"longest_edge": 56})
    processor = transformers.PixtralProcessor(
        image_processor, words.tokenizer, patch_size=7, spatial_merge_size=2, chat_template=words.template
    )
    vision = {"model_type": "pixtral", "head_dim": 16, "image_size": 56, "patch_size": 7, **TOWER}
    config = CONFIG_MAPPING[kind](
        text_config=words.text("mistral", sliding_window=20), vision_config=vision, spatial_merge_size=2,
        image_token_id=words.id("[IMG]"), image_token_index=words.id("[IMG]"), tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def gemma3(kind: str) -> Parts:
    words = Words(
        "<start_of_image>", image_token="<image_soft_token>", boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )  # fmt: skip
    image_processor = transformers.Gemma3ImageProcessor(size={"height": 28, "width": 28})
    processor = transformers.Gemma3Processor(
        image_processor, words.tokenizer, image_seq_length=4, chat_template=words.template
    )
    config = CONFIG_MAPPING[kind](
        text_config=words.text("gemma3_text", query_pre_attn_scalar=16, **MIXED), vision_config=SIGLIP,
        image_token_index=words.id("<image_soft_token>"), boi_token_index=words.id("<start_of_image>"),
        eoi_token_index=words.id("<end_of_image>"), mm_tokens_per_image=4, tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def gemma4(kind: str) -> Parts:
    names = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    audio = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    words = Words("<|image|>", ("<|video|>",), **names, **audio)
    image_processor = transformers.Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    processor = transformers.Gemma4Processor(
        transformers.Gemma4AudioFeatureExtractor(), image_processor, words.tokenizer,
        transformers.Gemma4VideoProcessor(), image_seq_length=70, chat_template=words.template,
    )  # fmt: skip
    sizes: dict[str, Any] = {
        "final_logit_softcapping": 30.0, "vocab_size_per_layer_input": len(words.tokenizer),
        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "use_bidirectional_attention": "vision", **MIXED,
        # What image tokens see in the last layer changes no log-prob: a second one of each kind shows it.
        "num_hidden_layers": 4, "layer_types": 2 * MIXED["layer_types"],
    }  # fmt: skip
    if kind == "gemma4-small":  # no two-way attention; embeddings per layer, and layers that share keys and values
        sizes |= {
            "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2, "use_bidirectional_attention": None,
        }  # fmt: skip
    text = words.text("gemma4_text", **sizes)
    vision = {
        "model_type": "gemma4_vision", "head_dim": 16, "num_key_value_heads": 2, "pooling_kernel_size": 2,
        "patch_size": 4, "position_embedding_size": 64, **TOWER,
    }  # fmt: skip
    config = CONFIG_MAPPING["gemma4"](
        text_config=text, vision_config=vision, audio_config=None, tie_word_embeddings=False,
        image_token_id=words.id("<|image|>"), boi_token_id=words.id("<|image>"), eoi_token_id=words.id("<image|>"),
        video_token_id=words.id("<|video|>"), audio_token_id=words.id("<|audio|>"), boa_token_id=words.id("<|audio>"),
        eoa_token_index=words.id("<audio|>"),
    )  # fmt: skip
    return config, processor


def molmo2(kind: str) -> Parts:
    marks = ("<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>", "<frame_end>",
             "<im_low>")  # fmt: skip
    words = Words("<|image|>", marks, image_token="<|image|>", video_token="<|video|>")
    image_processor = transformers.Molmo2ImageProcessor(
        size={"height": 28, "width": 28}, patch_size=7, max_crops=2, overlap_margins=[1, 1], pooling_size=[2, 2]
    )
    processor = transformers.Molmo2Processor(
        image_processor, transformers.Molmo2VideoProcessor(), words.tokenizer, chat_template=words.template
    )
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 32}
    vision = {**TOWER, **heads, "image_size": [28, 28], "patch_size": 7}
    adapter = {"vision_feature_layer": [1, 0], "intermediate_size": 48, "text_hidden_size": 64, **heads}
    config = CONFIG_MAPPING[kind](
        text_config=words.text("molmo2_text", additional_vocab_size=8), vision_config=vision, adapter_config=adapter,
        image_start_token_id=words.id("<im_start>"), low_res_image_start_token_id=words.id("<low_res_im_start>"),
        image_end_token_id=words.id("<im_end>"), image_patch_id=words.id("<im_patch>"),
        frame_start_token_id=words.id("<frame_start>"), frame_end_token_id=words.id("<frame_end>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def lfm2_vl(kind: str) -> Parts:
    rows = tuple(f"<|img_row_{i}_col_{j}|>" for i in range(1, 5) for j in range(1, 5))
    marks = ("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>", *rows)
    words = Words("<image>", marks, image_token="<image>")
    image_processor = transformers.Lfm2VlImageProcessor(
        downsample_factor=2, encoder_patch_size=4, tile_size=32, min_tiles=2, max_tiles=4, min_image_tokens=4,
        max_image_tokens=16, size={"height": 32, "width": 32},
    )  # fmt: skip
    processor = transformers.Lfm2VlProcessor(image_processor, words.tokenizer, chat_template=words.template)
    vision = {"model_type": "siglip2_vision_model", "patch_size": 4, "num_patches": 64, "vision_use_head": False}
    config = CONFIG_MAPPING[kind](
        text_config=words.text("lfm2", layer_types=["conv", "full_attention"]), vision_config={**vision, **TOWER},
        image_token_id=words.id("<image>"), projector_hidden_size=48, downsample_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def minicpm(kind: str) -> Parts:
    names: dict[str, Any] = {
        "image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "image_start_token": "<image>",
        "image_end_token": "</image>", "slice_start_token": "<slice>", "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>",
    }  # fmt: skip
    words = Words("<|image_pad|>", **names)
    image_processor = transformers.MiniCPMV4_6ImageProcessor(patch_size=4, scale_resolution=32, max_slice_nums=4)
    processor = transformers.MiniCPMV4_6Processor(
        image_processor, transformers.MiniCPMV4_6VideoProcessor(), words.tokenizer, chat_template=words.template
    )
    vision = {**TOWER, "image_size": 32, "patch_size": 4, "insert_layer_id": 0}
    config = CONFIG_MAPPING[kind](
        text_config=words.text("qwen3_5_text", **DELTA_NET), vision_config=vision, insert_layer_id=0,
        image_token_id=words.id("<|image_pad|>"), video_token_id=words.id("<|video_pad|>"), tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor
