"""Checkpoints that cannot be half-written, each with a plain PEFT folder beside it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from safetensors.torch import save_file

from racro_pl.types import RacroError

ADAPTER_KEY = "racro_adapter_config"
"""Checkpoint entry: the PEFT configuration as JSON text (absent after full fine-tuning)."""
_STATE_PREFIX = "captioner.model."


class RacroCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, syncs, renames; then writes ``<name>-adapter/``, which peft and vLLM can load."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        if ADAPTER_KEY in checkpoint:
            write_adapter(checkpoint, adapter_folder(target))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Load tensors and plain values only: a checkpoint from elsewhere cannot run code.

        Raises:
            RacroError: the file is missing, cut off, or holds anything else.
        """
        if not Path(path).is_file():
            raise RacroError(f"ckpt_path {str(path)!r}: no such file; expected a .ckpt that an earlier run wrote")
        try:
            return super().load_checkpoint(path, map_location, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise RacroError(f"ckpt_path {str(path)!r} is not a whole, plain checkpoint: {reason}") from error

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        shutil.rmtree(adapter_folder(Path(path)), ignore_errors=True)


def adapter_folder(checkpoint: Path) -> Path:
    """Where the PEFT folder of a checkpoint file lies: ``last.ckpt`` has ``last-adapter/``."""
    return checkpoint.with_name(f"{checkpoint.stem}-adapter")


def write_adapter(checkpoint: dict[str, Any], folder: Path) -> None:
    """The PEFT folder of a checkpoint: ``adapter_config.json`` and ``adapter_model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    # PEFT leaves the adapter's own name out of its files.
    tensors = {
        name.removeprefix(_STATE_PREFIX).replace(".default.", "."): tensor.contiguous().cpu()
        for name, tensor in checkpoint["state_dict"].items()
    }
    partial = folder / ".adapter_model.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(checkpoint[ADAPTER_KEY] + "\n")


def adapter_config_json(peft_config: Any) -> str:
    """A PEFT configuration as PEFT itself would write it, for inference."""
    settings = peft_config.to_dict() | {"inference_mode": True}

    def plain(value: Any) -> Any:
        return sorted(value) if isinstance(value, set) else str(value)

    return json.dumps(settings, indent=2, sort_keys=True, default=plain)
