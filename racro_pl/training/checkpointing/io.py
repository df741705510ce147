"""Checkpoints that cannot be half-written, each with a plain PEFT folder beside it."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import save_file

from racro_pl.files import partial_path, replace_folder, sync, whole_folder
from racro_pl.pretrained.folder import first_line
from racro_pl.types import RacroError

ADAPTER_KEY = "racro_adapter_config"
"""Checkpoint entry: the PEFT configuration as JSON text (absent after full fine-tuning)."""
_STATE_PREFIX = "captioner.model."


class RacroCheckpointIO(TorchCheckpointIO):
    """Writes ``<name>.ckpt`` and beside it ``<name>-adapter/``, which peft and vLLM can load.

    Both are written under hidden names, synced and renamed: whenever the process is killed, what has its proper name
    is whole. The folder is renamed first: at worst it is one checkpoint ahead of the file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(target)
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if ADAPTER_KEY in checkpoint:
                with whole_folder(adapter_folder(target)) as folder:
                    write_adapter(checkpoint, folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch and safetensors wrap what the disk said. The space that it took goes back.
            partial.unlink(missing_ok=True)
            raise RacroError(
                f"cannot write the checkpoint {target}: {first_line(error)}; free some space, then {_way_on(target)}"
            ) from error
        partial.replace(target)
        sync(target.parent)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Load tensors and plain values only: a checkpoint from elsewhere cannot run code.

        Raises:
            RacroError: the file is missing, cut off, or holds anything else.
        """
        if not Path(path).is_file():
            raise RacroError(f"ckpt_path {str(path)!r}: no such file; expected a .ckpt that an earlier run wrote")
        try:
            return super().load_checkpoint(path, map_location, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            message = f"ckpt_path {str(path)!r} is not a whole, plain checkpoint: {first_line(error)}"
            raise RacroError(message) from error

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        shutil.rmtree(adapter_folder(Path(path)), ignore_errors=True)


def _way_on(target: Path) -> str:
    """What to do when a checkpoint could not be written."""
    folder = target.parent.parent if target.parent.name == "checkpoints" else target.parent
    before = newest_checkpoint(folder)
    if before is None:
        return f"start the run again: no checkpoint of it is in {folder}"
    return f"resume from the one before, which is whole: --ckpt_path {shlex.quote(str(before))}"


def adapter_folder(checkpoint: Path) -> Path:
    """Where the PEFT folder of a checkpoint file lies: ``last.ckpt`` has ``last-adapter/``."""
    return checkpoint.with_name(f"{checkpoint.stem}-adapter")


def rename_checkpoint(old: Path, new: Path) -> None:
    """Give a checkpoint, and the folder beside it, another name; one that has the name goes."""
    if adapter_folder(old).is_dir():
        replace_folder(adapter_folder(old), adapter_folder(new))
    old.replace(new)
    sync(new.parent)


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written; a PEFT folder that only lacked its name gets it."""
    for moved in folder.glob(".*.old"):
        name = moved.name[1:].removesuffix(".old")
        staged = folder / f".{name}.partial"
        if not (folder / name).exists() and staged.exists():
            staged.replace(folder / name)
    for path in (*folder.glob(".*.partial"), *folder.glob(".*.old"), *folder.glob("finishing*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def checkpoint_step(path: Path) -> int:
    """Steps that a checkpoint has seen.

    Raises:
        RacroError: as ``RacroCheckpointIO.load_checkpoint``.
    """
    return int(RacroCheckpointIO().load_checkpoint(path)["global_step"])


def newest_checkpoint(folder: Path) -> Path | None:
    """The one of a run's checkpoints that was written last."""
    found = [*folder.glob("hpc_ckpt_*.ckpt"), *(folder / "checkpoints").glob("*.ckpt")]
    whole = [path for path in found if path.name != "finishing.ckpt"]
    return max(whole, key=lambda path: path.stat().st_mtime_ns, default=None)


def write_adapter(checkpoint: dict[str, Any], folder: Path) -> None:
    """The PEFT folder of a checkpoint: ``adapter_config.json`` and ``adapter_model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    # PEFT leaves the adapter's own name out of its files.
    tensors = {
        name.removeprefix(_STATE_PREFIX).replace(".default.", "."): tensor.contiguous().cpu()
        for name, tensor in checkpoint["state_dict"].items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(checkpoint[ADAPTER_KEY] + "\n", encoding="utf-8")


def adapter_config_json(peft_config: Any) -> str:
    """A PEFT configuration as PEFT itself would write it, for inference."""
    settings = peft_config.to_dict() | {"inference_mode": True}

    def plain(value: Any) -> Any:
        return sorted(value) if isinstance(value, set) else str(value)

    return json.dumps(settings, indent=2, sort_keys=True, default=plain)
