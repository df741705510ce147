"""Starting a stage from the adapter of another: where it lies, whether it fits, and how it becomes the reference.

The policy's own adapter (``default``) begins as a copy of the start adapter and is the only one that moves; a second,
frozen copy (``start``) stays beside it. The KL term's reference is then the base with the start adapter: the model
that the stage began with, as in the paper's second stage, and not the bare base. The base itself is left as it is, so
this holds for 4-bit bases too, and whatever saves or serves the policy needs the one adapter ``default`` alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from racro_pl.policy.config import LoraSettings
from racro_pl.runs import versions
from racro_pl.types import RacroError

TRAINED = "default"
"""Name of the adapter that is trained, saved and served."""
START = "start"
"""Name of the frozen copy of the adapter that the run started from; absent when it started from the base."""
_FILES = ("adapter_config.json", "adapter_model.safetensors")


def find_adapter(path: str) -> Path:
    """The PEFT folder that ``policy.adapter`` means.

    Args:
        path: a PEFT folder, a run's folder (``runs/NAME/version_k``, or ``runs/NAME`` for its newest version that has
            finished), or a checkpoint file (its ``-adapter`` folder lies beside it).

    Raises:
        RacroError: there is none.
    """
    given = Path(path)
    if given.suffix == ".ckpt":
        candidates = [given.with_name(f"{given.stem}-adapter")]
    else:
        finished = [version / "adapter" for version in reversed(versions(given))]
        candidates = [given, given / "adapter", *finished]
    for folder in candidates:
        # Without safetensors peft would read a pickle.
        if all((folder / name).is_file() for name in _FILES):
            return folder
    raise RacroError(
        f"policy.adapter {path!r} holds no {_FILES[0]} and {_FILES[1]}; expected a PEFT folder, the folder of a run "
        "that has finished, or a .ckpt file with its -adapter folder beside it"
    )


def start_from(model: Any, folder: Path, lora: LoraSettings) -> None:
    """Put a start adapter's weights into ``model``'s trained adapter, and a frozen copy of them beside it.

    Args:
        model: a PEFT model whose trained adapter is fresh.
        folder: a PEFT folder.
        lora: what the configuration says of the adapter; the start adapter has to say the same.

    Raises:
        RacroError: its alpha, rank, layers or sizes differ.
    """
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    _check_settings(folder, lora)
    weights = load_peft_weights(str(folder), device="cpu")
    expected = get_peft_model_state_dict(model, adapter_name=TRAINED)
    strange = sorted(set(weights) ^ set(expected))
    if strange:
        raise RacroError(
            f"policy.adapter {str(folder)!r} adapts other layers than this policy: {len(strange)} tensors have no "
            f"counterpart, e.g. {strange[0]}. Was it trained on another model, or by another program? Expected an "
            "adapter on every linear layer of the language model"
        )
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise RacroError(
                f"policy.adapter {str(folder)!r}: {name} is {tuple(weights[name].shape)}, this policy's is "
                f"{tuple(tensor.shape)}; expected an adapter of the same base model as policy.path"
            )
    model.add_adapter(START, model.peft_config[TRAINED])
    for name in (TRAINED, START):
        set_peft_model_state_dict(model, weights, adapter_name=name)
    model.set_adapter(TRAINED)


def _check_settings(folder: Path, lora: LoraSettings) -> None:
    file = folder / _FILES[0]
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rank, alpha, dropout = found["r"], found["lora_alpha"], found.get("lora_dropout", 0.0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RacroError(f"{file} is not the configuration of a LoRA adapter: {error!r}") from error
    if (rank, alpha) != (lora.rank, lora.alpha):
        raise RacroError(
            f"policy.adapter {str(folder)!r} has rank {rank} and alpha {alpha}, policy.lora says rank {lora.rank} and "
            f"alpha {lora.alpha}; a stage goes on with the adapter it starts from: set policy.lora to "
            f"{{rank: {rank}, alpha: {alpha}}}"
        )
    unsupported = [name for name in ("use_dora", "use_rslora", "modules_to_save") if found.get(name)]
    if dropout or unsupported:
        raise RacroError(
            f"policy.adapter {str(folder)!r} uses {', '.join(unsupported) or f'lora_dropout {dropout}'}; expected a "
            "plain LoRA adapter without dropout, as `racro-pl fit` writes it"
        )
