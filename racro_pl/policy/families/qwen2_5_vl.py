"""Qwen2.5-VL (3B, 7B, 32B, 72B): the paper's captioners."""

from racro_pl.policy.families.base import Family

QWEN2_5_VL = Family(
    model_type="qwen2_5_vl",
    vision_prefix="model.visual",
    lora_targets=r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    vision_token_fields=("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
)
