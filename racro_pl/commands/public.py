"""What may be told to the world about a run: an allow-list. All else may name a server, a folder or a key.

Of a configuration: numbers and switches by the names below, a few words from closed lists, names of classes, and of
models the last part of a path or hub id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from racro_pl.figure_world.models import EMBEDDED, PREFIX
from racro_pl.training.settings import ObjectiveSettings

SERVED = "a server"
"""Stands for a URL."""
_OBJECTIVE = frozenset(field.name for field in fields(ObjectiveSettings))
_NUMBERS = _OBJECTIVE | {
    "rank", "alpha", "freeze_vision", "min_pixels", "max_pixels", "group_size", "max_new_tokens", "temperature",
    "top_p", "max_tokens", "votes", "shuffle", "max_unscored_share", "questions_per_step", "max_prompt_tokens",
    "train", "validation", "test", "validation_share", "test_share", "seed",
}  # fmt: skip
_WORDS = {"objective": _OBJECTIVE, "policy": {"quantization", "dtype"}, "reward": {"combine"}, "reasoner": {"dtype"}}
"""Settings of each part whose values are words of a closed list."""
_WORD = re.compile(r"[a-z][a-z0-9_]{0,15}")
_MODELS = frozenset({"model", "path"})
"""Settings that name a model; only below ``_HOLDERS`` (a reader's path is of data)."""
_HOLDERS = frozenset({"reasoner", "reasoners"})
_PARTS = _HOLDERS | {"policy", "lora", "rollout", "reward", "objective", "reader"}
_MODEL_NAME = re.compile(r"[\w.+-]{1,80}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/")


def public(value: Any, name: str, within: str = "") -> Any:
    """What of a setting may be told; None for nothing.

    Args:
        value: plain values, lists and mappings, as a configuration's YAML gives them.
        name: the setting's, or the section's.
        within: the part that it is a setting of.
    """
    if isinstance(value, Mapping):
        settings = value.get("init_args") if "class_path" in value else value
        kept = {"class": _class_name(value["class_path"])} if "class_path" in value else {}
        for key, item in (settings if isinstance(settings, Mapping) else {}).items():
            told = public(item, str(key), name)
            if told is not None:
                kept[key] = told
        return kept if kept and name in _PARTS else None
    if isinstance(value, list | tuple):
        told = [public(item, name, within) for item in value]
        return [item for item in told if item is not None] or None
    if isinstance(value, bool | int | float):
        return value if name in _NUMBERS else None
    if isinstance(value, str) and name in _MODELS and within in _HOLDERS:
        return model_name(value)
    if isinstance(value, str) and name in _PARTS:
        return {"class": _class_name(value)}
    listed = isinstance(value, str) and name in _WORDS.get(within, ())
    return value if listed and _WORD.fullmatch(value) else None


def model_name(path: str) -> str | None:
    """The last part of a model's path or hub id; None where it may be something else."""
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1].removeprefix(PREFIX)
    return name if _MODEL_NAME.fullmatch(name) and "://" not in path else None


def hub_id(path: str) -> str | None:
    """What others load a model by: its hub id, or the name of an embedded one; None for a folder of this machine."""
    for name, folder in EMBEDDED.items():
        if path in (str(folder), PREFIX + name):
            return PREFIX + name
    if (found := _HUB_CACHE.search(path)) is not None:
        return f"{found[1]}/{found[2]}"
    return path if _HUB_ID.fullmatch(path) and not Path(path).exists() and not path.startswith(".") else None


def public_place(place: str | None) -> str | None:
    """Of a path its last part, of a hub id all of it, of a URL that there is a server."""
    if place is None or hub_id(place):
        return place and hub_id(place)
    return SERVED if "://" in place else Path(place).name


def public_identity(identity: str) -> dict[str, Any]:
    """What may be told of a reasoner's identity (JSON): its model and how it samples."""
    try:
        return public(json.loads(identity), "reasoner") or {}
    except ValueError:  # a reasoner of the user's own class
        return {}


def _class_name(path: Any) -> str:
    name = str(path).rsplit(".", 1)[-1]
    return name if name.isidentifier() else "?"
