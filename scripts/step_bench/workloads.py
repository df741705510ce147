"""What is timed: random Qwen2.5-VL models built from numbers, drawn images, questions and fixed captions."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

LORA_RANK, LORA_ALPHA = 16, 32
LEARNING_RATE, KL_COEFFICIENT = 1e-5, 1e-3
LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
SPECIAL = [
    f"<|{n}|>" for n in ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
]
QUESTION = "what color is the {shape} on the {side}?"
REQUEST = "Question: {question}\nPlease describe the image. DO NOT try to answer the question!"
"""The user's turn as both sides send it."""
SYSTEM = (
    "You are given an image and a relevant question. Based on the query, please describe the image in detail. "
    "Do not try to answer the question."
)
"""The system's turn: ours, which the peer is given too, so that prompts are equal. Its side runs without racro_pl."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Workload:
    """One step: ``questions`` of one image each, ``group`` captions of exactly ``tokens`` tokens per question."""

    questions: int
    group: int
    tokens: int
    image_side: int
    micro_batch: int
    """Captions per backward pass, on both sides; the peer's best."""
    hidden: int
    inner: int
    layers: int
    rope_sections: tuple[int, int, int]
    vision_hidden: int
    vision_inner: int
    vision_depth: int
    vision_full_attention: tuple[int, ...]
    reward_seconds: float = 0.0
    questions_per_batch: int = 8
    """Sampled together, on our side: fewer reach a slow reasoner sooner."""
    heads: int = 4
    kv_heads: int = 2
    vision_heads: int = 4
    rope_theta: float = 1e4
    vocabulary: int | None = None
    """Rows of the embedding; None for as many as the tokenizer has."""
    tied: bool = False
    """Whether the head is the embedding."""
    epoch: int = 0
    """Questions after which the same ones come again; 0 for never."""
    image_cache_mib: int = 0
    """Our ``policy.image_cache_mib``; the peer has nothing like it."""


SMALL: dict[str, Any] = {
    "hidden": 192, "inner": 512, "layers": 4, "rope_sections": (8, 8, 8), "vision_hidden": 128, "vision_inner": 256,
    "vision_depth": 4, "vision_full_attention": (1, 3),
}  # fmt: skip
MIDDLE: dict[str, Any] = {
    "hidden": 256, "inner": 704, "layers": 6, "rope_sections": (8, 12, 12), "vision_hidden": 192, "vision_inner": 384,
    "vision_depth": 3, "vision_full_attention": (),
}  # fmt: skip
QWEN: dict[str, Any] = {
    "rope_sections": (16, 24, 24), "rope_theta": 1e6, "vision_hidden": 1280, "vision_inner": 3420, "vision_depth": 32,
    "vision_full_attention": (7, 15, 23, 31), "vision_heads": 16,
}  # fmt: skip
QWEN_3B = QWEN | {
    "hidden": 2048, "inner": 11008, "layers": 36, "heads": 16, "kv_heads": 2, "vocabulary": 151936, "tied": True,
}  # fmt: skip
QWEN_7B = QWEN | {
    "hidden": 3584, "inner": 18944, "layers": 28, "heads": 28, "kv_heads": 4, "vocabulary": 152064,
}  # fmt: skip
WORKLOADS = {
    "tiny": Workload(8, 8, 32, 112, 16, **SMALL),
    "long-prompt": Workload(2, 8, 64, 896, 8, **MIDDLE),
    "slow-reward": Workload(8, 8, 32, 112, 16, **SMALL, reward_seconds=1.0, questions_per_batch=4),
    "family": Workload(1, 8, 32, 112, 8, **SMALL | {"inner": 2048}),
    "3b": Workload(1, 8, 300, 512, 8, **QWEN_3B),
    "7b": Workload(1, 8, 300, 512, 8, **QWEN_7B),
}
"""By name. Of "family" a family's own builder takes the numbers of layers and the MLP's width, nothing else of the
model. 3b and 7b are the shapes of Qwen2.5-VL-3B and 7B, for scripts/bench_gpu.py."""


def find_workload(text: str) -> Workload:
    """A workload by its name, with numbers changed where asked: ``long-prompt:group=16:image_side=448``.

    Raises:
        ValueError: there is no such workload, or no such number in it.
    """
    name, *changes = text.split(":")
    if name not in WORKLOADS:
        raise ValueError(f"no workload {name!r}; expected one of {', '.join(sorted(WORKLOADS))}")
    pairs = [change.partition("=") for change in changes]
    try:
        return replace(WORKLOADS[name], **{key: int(number) for key, _, number in pairs})
    except TypeError as error:
        raise ValueError(f"workload {text!r}: {error}") from error


def build_model(workload: Workload, folder: Path) -> None:
    """Save a random model with processor and a small tokenizer; a small vocabulary, which favours neither side."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(save_processor(workload, folder)).save_pretrained(folder)


def build_family(workload: Workload, kind: str, folder: Path) -> None:
    """Save a random model of a family with its processor, as the tests build it but deeper and wider."""
    from tests.helpers.families import BUILDERS, save_small_family

    sizes: dict[str, Any] = {"num_hidden_layers": workload.layers, "intermediate_size": workload.inner}
    kinds = getattr(BUILDERS[kind](kind)[0].text_config, "layer_types", None)
    if kinds is not None:
        sizes["layer_types"] = [kinds[index % len(kinds)] for index in range(workload.layers)]
    save_small_family(folder, kind, **sizes)


def save_processor(workload: Workload, folder: Path) -> Any:
    """Save a processor with a small tokenizer, and the ``Qwen2_5_VLConfig`` that goes with it, which is returned."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    sentence = REQUEST.format(question=QUESTION.format(shape="circle square image", side="left right"))
    bpe.train_from_iterator([sentence, SYSTEM] * 10, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        extra_special_tokens={
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
        },
    )  # fmt: skip
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    text = {
        "vocab_size": workload.vocabulary or len(tokenizer), "hidden_size": workload.hidden,
        "intermediate_size": workload.inner, "num_hidden_layers": workload.layers,
        "num_attention_heads": workload.heads, "num_key_value_heads": workload.kv_heads,
        "tie_word_embeddings": workload.tied, "max_position_embeddings": 32768,
        "bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
        "rope_parameters": {
            "rope_type": "default", "rope_theta": workload.rope_theta,
            "mrope_section": list(workload.rope_sections),
        },
    }  # fmt: skip
    vision = {
        "depth": workload.vision_depth, "hidden_size": workload.vision_hidden, "num_heads": workload.vision_heads,
        "intermediate_size": workload.vision_inner, "out_hidden_size": workload.hidden, "window_size": 112,
        "patch_size": 14, "fullatt_block_indexes": list(workload.vision_full_attention),
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=workload.tied,
    )  # fmt: skip
    size = {"shortest_edge": 28 * 28, "longest_edge": workload.image_side**2}
    image_processor = Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=size)
    Qwen2_5_VLProcessor(
        image_processor, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE
    ).save_pretrained(folder)
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.save_pretrained(folder)
    return config


def make_rows(workload: Workload, count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """(question, PNG) pairs: shapes on a gradient; the same for the same arguments."""
    from PIL import Image, ImageDraw

    draw, side = random.Random(seed), workload.image_side
    rows: list[tuple[str, bytes]] = []
    for _ in range(min(count, workload.epoch or count)):
        image = Image.linear_gradient("L").resize((side, side)).convert("RGB")
        canvas = ImageDraw.Draw(image)
        for _ in range(6):
            x, y, radius = draw.randrange(side), draw.randrange(side), draw.randrange(4, side // 4)
            shape = canvas.ellipse if draw.random() < 0.5 else canvas.rectangle
            shape((x - radius, y - radius, x + radius, y + radius), fill=tuple(draw.randrange(256) for _ in range(3)))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        question = QUESTION.format(
            shape=draw.choice(["circle", "square", "image"]), side=draw.choice(["left", "right"])
        )
        rows.append((question, buffer.getvalue()))
    return [rows[index % len(rows)] for index in range(count)]


def fixed_captions(workload: Workload) -> tuple[list[list[int]], list[float]]:
    """One step's captions and rewards for the comparison of both sides' losses; of ids that every tokenizer has."""
    draw, count = random.Random(1), workload.questions * workload.group
    captions = [[draw.randrange(60, 280) for _ in range(workload.tokens)] for _ in range(count)]
    return captions, [float(draw.randrange(2)) for _ in range(count)]
