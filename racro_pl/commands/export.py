"""``racro-pl export``: what a run trained, as a folder for others: a PEFT adapter, or a whole model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from racro_pl import __version__
from racro_pl.commands.quiet import quiet_libraries
from racro_pl.evaluation.captioner_source import find_policy
from racro_pl.evaluation.report.formatting import interval, percent
from racro_pl.evaluation.results import Results
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.policy.config import PolicySettings
from racro_pl.terminal import Console
from racro_pl.types import RacroError


def main(arguments: list[str]) -> int:
    """Run ``export``; returns the exit code."""
    options = _parse(arguments)
    quiet_libraries()
    console = Console(stderr=True)
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RacroError(f"{out} is there and not empty; export into a new folder")
    source = _adapter_of(Path(options.source))
    policy = find_policy(CaptionerSettings(str(source)), on_gpu=False)
    if not source.is_dir() or (policy.adapter is None and not (Path(policy.path) / "config.json").is_file()):
        raise RacroError(f"{options.source} is no result of `racro-pl fit`; expected a run, a checkpoint or an adapter")
    results = _read_results(options.results)

    from racro_pl.policy.exporting import export_adapter, export_merged

    out.mkdir(parents=True, exist_ok=True)
    whole = options.merge or policy.adapter is None  # full fine-tuning leaves a whole model in any case
    if whole:
        export_merged(policy, out, options.dtype)
    else:
        export_adapter(policy, out)
    config = _run_config(Path(policy.adapter or policy.path))
    (out / "README.md").write_text(model_card(policy, config, results, whole), encoding="utf-8")
    console.print(f"written: {out}", highlight=False, markup=False, soft_wrap=True)
    if options.push:
        _push(out, options.push, private=not options.public)
        console.print(f"pushed: {options.push}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="racro-pl export", description=__doc__)
    parser.add_argument("source", metavar="RUN|CKPT|ADAPTER", help="a run's folder, a .ckpt file, or a PEFT folder")
    parser.add_argument("out", metavar="OUT", help="new folder")
    parser.add_argument("--merge", action="store_true", help="add the adapter to the base weights: a whole model")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of a whole model (default: %(default)s)"
    )
    parser.add_argument("--results", metavar="results.json", help="scores of `racro-pl test` for the model card")
    parser.add_argument("--push", metavar="HUB_ID", help="upload the folder to this Hugging Face repository, private")
    parser.add_argument("--public", action="store_true", help="make that repository public")
    return parser.parse_args(arguments)


def _adapter_of(source: Path) -> Path:
    """A checkpoint file's PEFT folder lies beside it; everything else is what it is."""
    return source.with_name(f"{source.stem}-adapter") if source.suffix == ".ckpt" else source


def _read_results(path: str | None) -> Results | None:
    if path is None:
        return None
    try:
        return Results.from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RacroError(f"--results {path}: {error.strerror}; expected the results.json of a test") from error


def _run_config(result: Path) -> dict[str, Any]:
    """The configuration of the run that a result lies in; empty when it is not there."""
    for folder in (result.parent, result.parent.parent):
        if (folder / "config.yaml").is_file():
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            return config if isinstance(config, dict) else {}
    return {}


def model_card(policy: PolicySettings, config: dict[str, Any], results: Results | None, whole: bool) -> str:
    """A README with YAML front matter, as the Hugging Face hub reads it: base, data, reasoner, settings, scores.

    Args:
        policy: the base and how it was loaded.
        config: the run's resolved configuration; empty when unknown.
        results: of a test, if any.
        whole: a whole model, or an adapter.
    """
    front = {"base_model": policy.path, "library_name": "transformers" if whole else "peft",
             "pipeline_tag": "image-text-to-text", "tags": ["racro", "captioner", "grpo"]}  # fmt: skip
    model, data = config.get("model", {}), config.get("data", {})
    sections = {
        "Data": _public(data.get("reader")),
        "Reasoner and reward": _public(model.get("reward")),
        "Sampling": model.get("rollout"),
        "Objective": model.get("objective"),
        "Policy": {name: value for name, value in model.get("policy", {}).items() if name != "path"},
    }
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        "# Captioner trained by racro_pl\n",
        f"A captioner for *{policy.path}*: it writes, for an image and a question, the description that a text-only "
        "reasoner needs to answer. Trained by GRPO with the reasoner's success as reward (RACRO, 2025), by racro_pl "
        f"{__version__}.\n",
    ]
    if results is not None:
        lines.append(
            "## Scores\n\n| system | benchmark | headline in % | 95 % interval | questions |\n|---|---|---|---|---|"
        )
        lines += [
            f"| {cell.system.label} | {cell.title} ({cell.headline_name}) | {percent(cell.headline)} "
            f"| {interval(cell.low, cell.high)} | {cell.n} of {cell.expected or cell.n} |"
            for cell in results.cells
            if cell.headline is not None and cell.low is not None and cell.high is not None
        ]
        lines.append(f"\nScored by the rule `{results.settings.get('rule')}`.\n")
    for title, content in sections.items():
        if content:
            lines.append(f"## {title}\n\n```yaml\n{yaml.safe_dump(content, sort_keys=False)}```\n")
    return "\n".join(lines)


_PRIVATE = ("url", "api_key_env", "cache_path", "extra_body")
"""Settings that say where somebody's servers and files are."""


def _public(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _public(value) for name, value in content.items() if name not in _PRIVATE}
    return content


def _push(folder: Path, repository: str, private: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RacroError(f"cannot push to {repository}: {reason}. The folder {folder} is complete") from error
