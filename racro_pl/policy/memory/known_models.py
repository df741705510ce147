"""Configs of published captioners, so that their memory can be planned without downloading anything.

Sizes are those of the models' config.json on the Hugging Face hub; the parameter counts that follow from them are
the published ones, to the digits that are published (tests/unit/policy/test_ledger.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def _qwen2_5_vl(tower_width: int, tied: bool, **text: int) -> Any:
    from transformers import Qwen2_5_VLConfig

    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1_000_000.0}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": tower_width, "num_heads": 16,
              "out_hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
              "fullatt_block_indexes": [7, 15, 23, 31]}  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, "tie_word_embeddings": tied},
        vision_config=vision,
        tie_word_embeddings=tied,
    )


def _qwen3_5() -> Any:
    from transformers import Qwen3_5Config

    rope = {"rope_type": "default", "rope_theta": 10_000_000.0, "partial_rotary_factor": 0.25,
            "mrope_section": [11, 11, 10], "mrope_interleaved": True}  # fmt: skip
    text = {"hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 32, "num_attention_heads": 16,
            "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 248320, "linear_num_value_heads": 32,
            "linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
            "max_position_embeddings": 262144, "rope_parameters": rope, "tie_word_embeddings": True}  # fmt: skip
    vision = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560,
              "patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 2304}  # fmt: skip
    return Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=True)


def _internvl3_5() -> Any:
    from transformers import InternVLConfig

    text = {"model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
            "max_position_embeddings": 40960, "tie_word_embeddings": False}  # fmt: skip
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
              "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True}  # fmt: skip
    return InternVLConfig(
        text_config=text, vision_config=vision, downsample_ratio=0.5, image_seq_length=256, tie_word_embeddings=False
    )


_CONFIGS: dict[str, Callable[[], Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": partial(
        _qwen2_5_vl, 3420, True, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36,
        num_attention_heads=16, num_key_value_heads=2, vocab_size=151936,
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": partial(
        _qwen2_5_vl, 3420, False, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4, vocab_size=152064,
    ),
    "Qwen/Qwen2.5-VL-32B-Instruct": partial(
        _qwen2_5_vl, 3456, False, hidden_size=5120, intermediate_size=27648, num_hidden_layers=64,
        num_attention_heads=40, num_key_value_heads=8, vocab_size=152064,
    ),
    "Qwen/Qwen3.5-4B": _qwen3_5,
    "OpenGVLab/InternVL3_5-4B-HF": _internvl3_5,
}  # fmt: skip
KNOWN = tuple(_CONFIGS)
"""Hub ids whose config is known here."""


def known_config(hub_id: str) -> Any:
    """The config of one of :data:`KNOWN`; its sizes, that is, without token ids and the like."""
    return _CONFIGS[hub_id]()
