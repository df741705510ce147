"""Weights that are loaded whole or not at all.

transformers fills up at random what a checkpoint lacks, leaves out what the model does not know, and says so in a log
line. Here each of that is an error: a captioner with one random layer still writes, and a reasoner with one still
answers; only the results are noise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from racro_pl.pretrained.folder import check_weights, fetch_folder, first_line
from racro_pl.types import RacroError

_SHOWN = 3
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "base_model.model.")
"""What data-parallel wrappers, torch.compile, FSDP and PEFT put before the names of the tensors in them."""


def load_config(path: str, what: str) -> Any:
    """A model's config, from a folder that was checked; the attention implementation is left to transformers.

    Raises:
        RacroError: there is none, it is refused, or transformers cannot read it.
    """
    return _config(fetch_folder(path, what), what)


def _config(folder: Path, what: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a stranger's numbers can be wrong in any way
        raise RacroError(f"{what}: cannot load a model config ({first_line(error)})") from error
    # Which attention runs is this machine's choice: a folder that says flash_attention_2 would fetch a kernel.
    config._attn_implementation = None
    return config


def load_whole(auto_class: Any, path: str, what: str, **options: Any) -> Any:
    """A model with every tensor from its files, and every tensor of its files in it.

    Args:
        auto_class: a transformers class with ``from_pretrained``.
        path: folder or hub id.
        what: names it in errors, such as ``policy.path '...'``.
        options: for ``from_pretrained``: dtype, device_map, quantization_config.

    Raises:
        RacroError: the folder is refused or broken; or tensors are missing, unexpected or of another size, the first
            few of which are named, with what usually causes it.
    """
    import torch

    folder = fetch_folder(path, what, weights=True)
    check_weights(folder, what)
    config = _config(folder, what)
    try:
        with _without_bars():
            model, report = auto_class.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the report lists them: refused below
                **options,
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise RacroError(
            f"{what}: cannot load model weights ({type(error).__name__}: {first_line(error)}). Expected safetensors "
            "weights that fit config.json"
        ) from error
    refuse_halves(report["missing_keys"], report["unexpected_keys"], report["mismatched_keys"], what)
    # The name that adapters write down as their base: not where a download lies on this machine.
    model.name_or_path = model.config._name_or_path = path
    return model


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bar for each model that is loaded: in a log it is one line that never ends. Downloads keep theirs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def refuse_halves(
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[tuple[str, Any, Any]],
    what: str,
    cause: str | None = None,
) -> None:
    """Raise unless weights and model have the same tensors.

    Args:
        missing: names that the model has and the files lack.
        unexpected: names that the files have and the model lacks.
        mismatched: names with their shape in the files and their shape in the model.
        what: names the weights in the error.
        cause: what usually makes such a difference; None for what makes it in model folders.

    Raises:
        RacroError: they do not.
    """
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing from the files, {_first(missing)}")
    if unexpected:
        parts.append(f"{len(unexpected)} in the files but not in the model, {_first(unexpected)}")
    if mismatched:
        name, found, expected = min(mismatched)
        parts.append(
            f"{len(mismatched)} of another size, e.g. {name} is {tuple(found)} in the files and {tuple(expected)} in "
            "the model"
        )
    if parts:
        why = cause or _cause(missing, unexpected, mismatched)
        raise RacroError(f"{what}: tensors do not match the model: {'; '.join(parts)}. {why}")


def _first(names: Collection[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    return f"e.g. {', '.join(name[:200] for name in shown)}"


def _cause(missing: Collection[str], unexpected: Collection[str], mismatched: Collection[Any]) -> str:
    """What usually makes such a difference."""
    names = list(unexpected)
    for wrapper in _WRAPPERS:
        if any(name.startswith(wrapper) for name in names):
            return f"Names that begin with {wrapper!r} were saved from inside a wrapper: save the model in it"
    if any(part in name for name in names for part in (".qweight", ".qzeros", ".weight_packed", ".absmax")):
        return "The folder is quantised (AWQ, GPTQ, bitsandbytes): take the weights as published before that"
    if any("lora_" in name for name in names):
        return "An adapter is still apart from the weights: merge it, or name it as an adapter"
    if set(missing) == {"lm_head.weight"}:
        return (
            "A head that is tied to the embeddings is not stored: config.json has lost tie_word_embeddings: true (at "
            "the top level, and in text_config)"
        )
    if any("embed_tokens" in item[0] or "lm_head" in item[0] for item in mismatched):
        return "Usually the vocabulary was resized: config.json has to say the vocab_size of the files"
    if missing and not unexpected and not mismatched:
        return "Usually a file of several is missing, or config.json is that of a deeper model"
    return "Usually config.json is that of another model, or the files were written by another program or an old one"


def check_vocabulary(model: Any, tokenizer: Any, what: str) -> None:
    """Refuse a tokenizer that writes ids which the model has no embedding of.

    Raises:
        RacroError: it does; such an id would be an index out of range, or on a GPU an abort, in the middle of a run.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= rows:
        raise RacroError(
            f"{what}: the tokenizer is larger than the model: {token!r} has id {highest}, and there are {rows} "
            "embeddings; expected the model's own tokenizer, or embeddings that were resized with it"
        )


def end_token_ids(generation_config: Any, tokenizer: Any, what: str) -> frozenset[int]:
    """Every token that ends a text: those of ``generation_config.json`` and the tokenizer's own.

    A chat model's template may end turns with one that the other does not know; leaving it out would forbid it.

    Raises:
        RacroError: there is none, or one is no id of the tokenizer's.
    """
    named = generation_config.eos_token_id if generation_config is not None else None
    ids = {named} if isinstance(named, int) else set(named or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    wrong = [i for i in ids if not isinstance(i, int) or not 0 <= i < len(tokenizer)]
    if wrong or not ids:
        found = f"the end token {wrong[0]!r} is not in the tokenizer" if wrong else "no end token is named"
        raise RacroError(
            f"{what}: {found}; expected eos_token in tokenizer_config.json or eos_token_id in generation_config.json"
        )
    return frozenset(ids)
