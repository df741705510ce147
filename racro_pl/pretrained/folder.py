"""A model's folder, looked at before any library opens it: no code, no pickles, nothing cut off, nothing missing.

A folder (or hub repository) is a stranger's. transformers would follow some fields of its files to code: a custom
class (``auto_map``), an attention kernel from the hub (``attn_implementation``, CVE-2026-4372), pickled shards. The
fields and files that could do so are refused here by name; all other fields are sizes and numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from racro_pl.types import RacroError

MAX_JSON_BYTES = 16 * 2**20
"""No config, and no index of weights, comes near it; a ``tokenizer.json`` may be larger, and is not read here."""
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "preprocessor_config.json",
            "processor_config.json", "video_preprocessor_config.json")  # fmt: skip
_CODE_FIELDS = {
    "auto_map": "names Python code to run",
    "custom_pipelines": "names Python code to run",
    "transformers_weights": "names a weights file of its own",
    "fusion_config": "replaces layers by other code",
    "kernel_config": "replaces layers by kernels from the hub",
    "use_kernels": "replaces layers by kernels from the hub",
    "distributed_config": "says how the model is to be spread over devices",
}
_QUANTISED = ("quantization_config", "compression_config")
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_PLAIN_IMPLEMENTATION = re.compile(r"(paged\|)?[a-z0-9_]{1,40}", re.ASCII)
_DISTRIBUTED_SHARD = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class FolderError(RacroError):
    """A model folder that is incomplete, broken, or asks for more than its weights."""


def fetch_folder(path: str, what: str, weights: bool = False) -> Path:
    """The local folder of a model, its configuration files checked; a hub id is downloaded first.

    Args:
        path: a folder, or a hub id.
        what: names it in errors, such as ``policy.path '...'``.
        weights: fetch the weights files too; :func:`check_weights` opens them.

    Raises:
        FolderError: there is none, or it holds what is refused.
    """
    folder = Path(path) if Path(path).is_dir() else _download(path, what, _SMALL_FILES, None)
    check_configs(folder, what)
    if weights and not Path(path).is_dir():
        names = _indexed_names(folder, what) if (folder / _INDEX).is_file() else [_SINGLE]
        # The very commit whose configuration was checked: its folder in the cache is named after it.
        folder = _download(path, what, names, folder.name)
    return folder


def _download(path: str, what: str, patterns: Any, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=patterns, ignore_patterns=["*/*"], revision=revision))
    except (OSError, ValueError) as error:
        raise FolderError(
            f"{what}: cannot load it ({first_line(error)}). Expected a model folder, or the id of a hub repository"
        ) from error


def read_json(file: Path, what: str) -> dict[str, Any]:
    """A JSON object from a stranger's file.

    Raises:
        FolderError: it is too large, not JSON, or not an object.
    """
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise FolderError(f"{what}: {file.name} has {file.stat().st_size} bytes; expected at most {MAX_JSON_BYTES}")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"{what}: {file.name} cannot be read as JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise FolderError(f"{what}: {file.name} holds a {type(content).__name__}; expected a JSON object")
    return content


def check_configs(folder: Path, what: str) -> None:
    """Refuse fields that lead to code, kernels or other files, in any of a model's configuration files.

    Raises:
        FolderError: names the file and the field.
    """
    if not (folder / "config.json").is_file():
        hint = ": it is an adapter; name its base there" if (folder / "adapter_config.json").is_file() else ""
        raise FolderError(f"{what}: cannot load a model config: the folder has no config.json{hint}")
    if (folder / "adapter_config.json").is_file():
        raise FolderError(
            f"{what}: the folder holds a model and an adapter (adapter_config.json), which would be put on it unasked; "
            "expected the model alone: move the adapter to a folder of its own, and name that as the adapter"
        )
    for name in _CONFIGS:
        if (folder / name).is_file():
            for field, value in _fields(read_json(folder / name, what)):
                _check_field(name, field, value, what)


def _fields(content: Any) -> Iterator[tuple[str, Any]]:
    """All fields of nested objects. Iterative: how deep a file nests is its writer's choice."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _check_field(name: str, field: str, value: Any, what: str) -> None:
    if value in (None, False, "", [], {}):
        return
    if field in _CODE_FIELDS:
        raise FolderError(
            f"{what}: {name} sets {field}, which {_CODE_FIELDS[field]}; code from model folders is not run here. If "
            "the model needs none, take the field out of a copy"
        )
    if _IMPLEMENTATION.fullmatch(field):
        values = value.values() if isinstance(value, dict) else [value]
        if not all(v is None or (isinstance(v, str) and _PLAIN_IMPLEMENTATION.fullmatch(v)) for v in values):
            raise FolderError(
                f"{what}: {name} sets {field} to {str(value)[:80]!r}, a kernel to be downloaded and run; expected a "
                "plain name such as sdpa, or nothing: take the field out of a copy"
            )
    if field in _QUANTISED:
        method = value.get("quant_method") if isinstance(value, dict) else None
        raise FolderError(
            f"{what}: the folder is quantised ({str(method or field)[:40]}); expected the weights as published before "
            "that. A captioner takes 4-bit weights by policy.quantization: nf4; a quantised reasoner belongs on a "
            "server (racro_pl.reward.HttpReasoner)"
        )


def check_served(path: str, what: str, trusted: bool = False) -> None:
    """Refuse a local folder that another program is to serve: code, kernels from the hub, pickles.

    Whether the weights fit, and in which format they are, that program says.

    Args:
        path: the folder. A hub id is passed: the program downloads it itself.
        what: names it in errors.
        trusted: the user lets that program run the folder's code (``--trust-remote-code``).

    Raises:
        FolderError: it holds what is refused.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    for name in _CONFIGS:
        if (folder / name).is_file() and not trusted:
            for field, value in _fields(read_json(folder / name, what)):
                if field not in _QUANTISED:
                    _check_field(name, field, value, what)
    files = sorted(file.name for file in folder.iterdir())
    pickles = [name for name in files if name.endswith(_PICKLES)]
    if pickles and not any(name.endswith((".safetensors", ".gguf")) for name in files):
        raise FolderError(
            f"{what}: {pickles[0]} is a pickle, which can run code when it is opened; expected safetensors files: "
            "convert it elsewhere"
        )


def check_weights(folder: Path, what: str) -> None:
    """Open every weights file: headers only.

    Raises:
        FolderError: one is missing, cut off or no safetensors file.
    """
    for file in _weight_files(folder, what):
        read_header(file, what)


def read_header(file: Path, what: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, which must be whole.

    Raises:
        FolderError: it is missing, cut off, or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as content:
            return {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        size = file.stat().st_size if file.is_file() else 0
        raise FolderError(
            f"{what}: {file.name} ({size} bytes) is not a complete safetensors file ({first_line(error)}); usually a "
            "download or copy that was cut off, or a Git LFS pointer: fetch it again"
        ) from error


def _weight_files(folder: Path, what: str) -> list[Path]:
    """The safetensors files of a model, by the names that transformers looks for, in its order."""
    present = sorted(file.name for file in folder.iterdir())
    if any(_DISTRIBUTED_SHARD.fullmatch(name) for name in present):
        raise FolderError(
            f"{what}: the folder is a distributed checkpoint; expected {_SINGLE} or {_INDEX} with its files"
        )
    if _SINGLE in present:
        return [folder / _SINGLE]
    if _INDEX in present:
        files = [folder / name for name in _indexed_names(folder, what)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FolderError(
                f"{what}: {len(missing)} of {len(files)} weights files are missing, e.g. {missing[0]}; usually a "
                "download that was not finished: fetch the folder again"
            )
        return files
    shards = [name for name in present if name.endswith(".safetensors")]
    pickles = [name for name in present if name.endswith(_PICKLES)]
    found = ""
    if shards:
        found = f"; there is {shards[0]}, but no {_INDEX} that says which files belong together: fetch the folder again"
    elif pickles:
        found = f"; {pickles[0]} is a pickle, which can run code when it is opened: convert it to safetensors elsewhere"
    elif any(name.endswith(".gguf") for name in present):
        found = "; GGUF files are for llama.cpp: take the original model"
    raise FolderError(f"{what}: cannot load model weights: the folder has neither {_SINGLE} nor {_INDEX}{found}")


def _indexed_names(folder: Path, what: str) -> list[str]:
    listed = read_json(folder / _INDEX, what).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise FolderError(f"{what}: {_INDEX} has no weight_map; expected tensor names and the files they are in")
    for name in listed.values():
        plain = isinstance(name, str) and Path(name).name == name and len(name.encode(errors="replace")) < 256
        if not plain or not name.endswith(".safetensors"):
            raise FolderError(
                f"{what}: {_INDEX} names {str(name)[:80]!r}; expected safetensors files beside it, and nothing else"
            )
    return sorted(set(listed.values()))


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
