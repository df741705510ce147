"""Where a captioner's weights and settings are: run folders, PEFT folders, model folders, hub ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.figure_world.models import resolve_model
from racro_pl.policy.config import PolicySettings
from racro_pl.pretrained.folder import read_json
from racro_pl.reward import HttpReasoner
from racro_pl.runs import versions
from racro_pl.types import RacroError

MIN_PIXELS = 4 * 28 * 28
MAX_PIXELS = 16384 * 28 * 28
"""The reference's limits on an image's width * height at evaluation (its training has others)."""


_TRAINED_WITH: dict[str, Callable[[Any], bool]] = {
    "path": lambda value: isinstance(value, str),
    "quantization": lambda value: value in ("none", "nf4"),
    "dtype": lambda value: value in ("float32", "bfloat16"),
    "min_pixels": lambda value: type(value) is int,
    "max_pixels": lambda value: type(value) is int,
    "thinking": lambda value: type(value) is bool,
}
"""What is taken from the configuration beside a result, which may have come with a stranger's adapter."""


def is_url(path: str) -> bool:
    """Whether a captioner is served elsewhere, at a URL."""
    return path.startswith(("http://", "https://"))


def find_policy(settings: CaptionerSettings, on_gpu: bool) -> PolicySettings:
    """The weights that ``settings.path`` means, and how to load them.

    A run folder's own configuration says with which base, quantisation and image sizes its result was trained; what
    ``settings`` names wins over it.

    Raises:
        RacroError: a run folder without a result, or an adapter whose base cannot be told.
    """
    if _is_missing_folder(settings.path):
        raise RacroError(
            f"captioner {settings.path!r}: no such folder; expected a run of `fit` (has it been trained yet?), a PEFT "
            "folder, a model folder or hub id, an embedded: name, or a URL"
        )
    result = _result_of(Path(settings.path))
    trained: dict[str, Any] = _trained_with(result) if result is not None else {}
    adapter = None
    base = settings.path
    if result is not None and (result / "adapter_config.json").is_file():
        adapter = str(result)
        base = trained.get("path") or _base_of(result)
    elif result is not None:
        base = str(result)
    return PolicySettings(
        path=resolve_model(base),
        quantization=settings.quantization or trained.get("quantization") or "none",
        adapter=adapter,
        dtype=settings.dtype or trained.get("dtype") or ("bfloat16" if on_gpu else "float32"),
        thinking=trained.get("thinking") if settings.thinking is None else settings.thinking,
        gradient_checkpointing=False,
        min_pixels=settings.min_pixels or trained.get("min_pixels") or MIN_PIXELS,
        max_pixels=settings.max_pixels or trained.get("max_pixels") or MAX_PIXELS,
    )


def identity(settings: CaptionerSettings, on_gpu: bool) -> str:
    """What must be the same for captions written earlier to be this captioner's: weights, images, lengths.

    Raises:
        RacroError: as :func:`find_policy`; or no model is named, and the server cannot be asked.
    """
    limits = {"max_new_tokens": settings.max_new_tokens}
    if is_url(settings.path):
        # One address serves one model today and another tomorrow: of a server with a single one its name is asked for.
        with closing(HttpReasoner(settings.path, settings.model)) as server:
            model = json.loads(server.identity)["model"]
        sent = {name: getattr(settings, name) for name in ("min_pixels", "max_pixels") if getattr(settings, name)}
        return json.dumps({"url": settings.path, "model": model, **limits, **sent}, sort_keys=True)
    policy = find_policy(settings, on_gpu)
    files = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for folder in (policy.path, policy.adapter)
        if folder is not None
        for file in sorted(Path(folder).glob("*.safetensors"))
    ]
    names = ["path", "adapter", "quantization", "dtype", "min_pixels", "max_pixels"]
    names += ["thinking"] * (policy.thinking is not None)  # captions of earlier releases stay this captioner's
    return json.dumps({name: getattr(policy, name) for name in names} | limits | {"weights": files}, sort_keys=True)


def _result_of(path: Path) -> Path | None:
    """The folder with what a run trained, when ``path`` is one, or a run's; None for other models."""
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    if (path / "adapter_config.json").is_file():
        return path
    finished = [folder for folder in (path, *versions(path)) if has_result(folder)]
    run = finished[-1] if finished else None
    if run is None:
        raise RacroError(
            f"captioner {str(path)!r} is a folder without config.json (a model), adapter_config.json (an adapter) or a "
            "finished version_k (a run of fit); has the training ended?"
        )
    return run / "adapter" if (run / "adapter").is_dir() else run / "model"


def _is_missing_folder(path: str) -> bool:
    """Whether a path that is not there was meant as one: hub ids look alike but for their first part."""
    first = Path(path).parts[:1]
    local = Path(path).is_absolute() or path.startswith(("./", "../", "runs/")) or bool(first and Path(*first).is_dir())
    return local and not Path(path).exists()


def has_result(folder: Path) -> bool:
    """Whether a run's folder holds what a finished training leaves."""
    return (folder / "adapter").is_dir() or (folder / "model").is_dir()


def run_config(result: Path) -> dict[str, Any]:
    """The configuration of the run that ``result`` lies in (its folder, or its ``checkpoints/``); else empty.

    Raises:
        RacroError: it cannot be read.
    """
    file = _config_file(result)
    if file is None:
        return {}
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RacroError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    return config if isinstance(config, dict) else {}


def _config_file(result: Path) -> Path | None:
    files = (folder / "config.yaml" for folder in (result.parent, result.parent.parent))
    return next((file for file in files if file.is_file() and file.stat().st_size < 1_000_000), None)


def _trained_with(result: Path) -> dict[str, Any]:
    """The policy section of a run's configuration; empty where there is none."""
    model = run_config(result).get("model")
    policy = model.get("policy") if isinstance(model, dict) else None
    if not isinstance(policy, dict):
        return {}
    for name, expected in _TRAINED_WITH.items():
        value = policy.get(name)
        if value is not None and not expected(value):
            file = _config_file(result)
            raise RacroError(f"{file}: model.policy.{name} is {str(value)[:80]!r}; was the file written by `fit`?")
    return policy


def _base_of(adapter: Path) -> str:
    file = adapter / "adapter_config.json"
    base = read_json(file, f"adapter {str(adapter)!r}").get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise RacroError(f"{file} does not name its base model (base_model_name_or_path); expected a folder or hub id")
    return base
