"""Qwen3-VL (dense): deepstack vision features, the same language-layer names as Qwen2.5-VL."""

from racro_pl.policy.families.base import Family

QWEN3_VL = Family(
    model_type="qwen3_vl",
    vision_prefix="model.visual",
    lora_targets=r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    vision_token_fields=("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
)
