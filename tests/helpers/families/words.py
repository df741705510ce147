"""What all small models share: a tokenizer with a family's special tokens, a template, sizes."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
DELTA_NET = {
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"],
    "rope_parameters": {**INTERLEAVED, "partial_rotary_factor": 1.0},
}  # fmt: skip
"""A layer of linear attention, then one of full attention."""
