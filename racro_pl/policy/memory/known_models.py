"""Configs of published captioners, so that their memory can be planned without downloading anything.

Sizes are those of the models' config.json on the Hugging Face hub; the parameter counts that follow from them are
the published ones (3,754,622,976, 8,292,166,656 and 33,452,718,336; tests/unit/policy/test_ledger.py).
"""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, tuple[dict[str, Any], int, bool]] = {
    # name: language model, width of the tower's MLP, whether the head is the embedding
    "Qwen/Qwen2.5-VL-3B-Instruct": (
        {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
         "num_key_value_heads": 2, "vocab_size": 151936}, 3420, True,
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": (
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152064}, 3420, False,
    ),
    "Qwen/Qwen2.5-VL-32B-Instruct": (
        {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
         "num_key_value_heads": 8, "vocab_size": 152064}, 3456, False,
    ),
}  # fmt: skip
KNOWN = tuple(_SIZES)
"""Hub ids whose config is known here."""


def known_config(hub_id: str) -> Any:
    """The config of one of :data:`KNOWN`; its sizes, that is, without token ids and the like."""
    from transformers import Qwen2_5_VLConfig

    text, tower_width, tied = _SIZES[hub_id]
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1_000_000.0}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": tower_width, "num_heads": 16,
              "out_hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
              "fullatt_block_indexes": [7, 15, 23, 31]}  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, "tie_word_embeddings": tied},
        vision_config=vision,
        tie_word_embeddings=tied,
    )
