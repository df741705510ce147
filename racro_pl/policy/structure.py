"""What a vision-language model is made of, read off the model itself: decoder, head, vision side, layers to adapt.

Nothing here is a list of families. transformers names the decoder and the head of every model; all that stands beside
the decoder serves the images, projectors included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from racro_pl.types import RacroError

_TEXT_ENDS = ("bos", "eos", "pad", "sep", "cls", "unk", "decoder_start")
"""Token fields of a config that say nothing about images; some configs hold defaults that fit no tokenizer there."""


def decoder_of(model: Any) -> Any:
    """The language model without its head.

    Args:
        model: a transformers image-text-to-text model without adapters around it; weights may be on the meta device.

    Raises:
        RacroError: text and image parts cannot be told apart.
    """
    decoder = model.get_decoder()
    if decoder is model or decoder is model.model or not hasattr(decoder, "layers"):
        raise RacroError(
            f"{type(model).__name__}: no language model apart from its vision side was found; expected an "
            "image-text-to-text model whose decoder has layers of its own"
        )
    return decoder


def decoder_name(model: Any) -> str:
    """Path of the decoder in the model, such as ``model.language_model``."""
    return _name_of(model, decoder_of(model))


def head_name(model: Any) -> str:
    """Path of the layer that gives the logits."""
    return _name_of(model, model.get_output_embeddings())


def vision_names(model: Any) -> list[str]:
    """Paths of all that serves the images: every child of the inner model but the decoder."""
    decoder = decoder_of(model)
    inner = _name_of(model, model.model)
    return [f"{inner}.{name}" for name, child in model.model.named_children() if child is not decoder]


def vision_parameters(model: Any) -> Iterator[nn.Parameter]:
    """The parameters of the vision side."""
    for name in vision_names(model):
        yield from model.get_submodule(name).parameters()


def linear_names(model: Any) -> list[str]:
    """Paths of the linear layers of the decoder: what adapters sit on.

    Routers and stacked experts of mixture models are bare parameters and not among them: see :func:`expert_names`.
    """
    prefix = decoder_name(model) + "."
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(prefix)]


def expert_names(model: Any) -> list[str]:
    """Paths of the stacked experts of a mixture's decoder: bare parameters, (experts, out, in) or (experts, in, out).

    Short convolutions have weights of three dimensions too.
    """
    prefix = decoder_name(model) + "."
    return [
        f"{name}.{own}" for name, module in model.named_modules()
        if name.startswith(prefix) and not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        for own, parameter in module.named_parameters(recurse=False) if parameter.ndim == 3
    ]  # fmt: skip


def lora_pattern(model: Any) -> str:
    """A regular expression that matches, as a whole, exactly the layers of :func:`linear_names`.

    Raises:
        RacroError: the decoder has no linear layer.
    """
    names = linear_names(model)
    if not names:
        raise RacroError(f"{type(model).__name__} has no linear layer in its language model: nothing to adapt")
    ends = dict.fromkeys(name.rsplit(".", 1)[1] for name in names)
    pattern = rf"{re.escape(decoder_name(model))}\..*\.({'|'.join(map(re.escape, ends))})"
    matched = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    if matched == names:
        return pattern
    # The same last name for a linear layer here and another kind of module there: name every layer.
    return "|".join(map(re.escape, names))


def head_of(model: Any) -> Callable[[Tensor], Tensor]:
    """From hidden states to logits, as the model itself computes them.

    Some models bound their logits: ``cap * tanh(logits / cap)`` (Gemma 2, arXiv:2408.00118, section 2).
    """
    head = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is None:
        return head
    return lambda hidden: torch.tanh(head(hidden) / cap) * cap


def vision_token_ids(config: Any, processor: Any) -> set[int]:
    """Ids that stand for images and video: those that the config's fields and the processor name."""
    fields = {
        value
        for name, value in config.to_dict().items()
        if name.endswith(("token_id", "_index", "patch_id")) and not name.startswith(_TEXT_ENDS)
    }
    fields |= set(getattr(processor, "image_token_ids", None) or ())
    return {value for value in fields if isinstance(value, int) and not isinstance(value, bool)}


def _name_of(model: Any, part: Any) -> str:
    return next(name for name, module in model.named_modules() if module is part)


@contextmanager
def in_eval_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """While this lasts, none of ``modules`` is in train mode.

    Around every pass without gradient, so it sets the flags itself: ``eval()`` and ``train()`` walk through the tree,
    12 ms each on a CPU core for a model of 36 layers.
    """
    training = [vars(module) for module in modules if module.training]
    for fields in training:
        fields["training"] = False
    try:
        yield
    finally:
        for fields in training:
            fields["training"] = True
