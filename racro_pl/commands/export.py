"""``racro-pl export``: what a run trained, as a folder for others: a PEFT adapter, or a whole model."""

from __future__ import annotations

import argparse
from pathlib import Path

from racro_pl.commands.model_card import model_card
from racro_pl.commands.public import hub_id
from racro_pl.commands.quiet import quiet_libraries
from racro_pl.commands.suggestions import CommandParser
from racro_pl.evaluation.captioner_source import find_policy, run_config
from racro_pl.evaluation.results import Results
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.files import write_atomically
from racro_pl.pretrained.folder import first_line
from racro_pl.terminal import Console
from racro_pl.training.checkpointing.io import adapter_folder
from racro_pl.types import RacroError


def main(arguments: list[str]) -> int:
    """Run ``export``; returns the exit code."""
    options = _parse(arguments)
    quiet_libraries()
    console = Console(stderr=True)
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RacroError(f"{out} is there and not empty; export into a new folder")
    source = Path(options.source)
    if source.suffix == ".ckpt":
        source = adapter_folder(source)
    policy = find_policy(CaptionerSettings(str(source)), on_gpu=False)
    if not source.is_dir() or (policy.adapter is None and not (Path(policy.path) / "config.json").is_file()):
        raise RacroError(
            f"{options.source} is not a result of racro-pl fit; expected a run, a checkpoint or an adapter"
        )
    results = _read_results(options.results)

    from racro_pl.policy.exporting import export_adapter, export_merged

    whole = options.merge or policy.adapter is None  # full fine-tuning leaves a whole model in any case
    config = run_config(Path(policy.adapter or policy.path))
    trained = policy.path if policy.adapter else (config.get("model") or {}).get("policy", {}).get("path", policy.path)
    base = _base(options.base, trained, whole=whole, push=bool(options.push))
    out.mkdir(parents=True, exist_ok=True)
    if whole:
        export_merged(policy, out, options.dtype)
    else:
        assert base is not None
        export_adapter(policy, out, base)
    card = model_card(policy, config, results, base=base, whole=whole, repository=options.push)
    write_atomically(out / "README.md", card)
    console.say(f"written: {out}")
    if options.push:
        _push(out, options.push, private=not options.public)
        console.say(f"pushed: {options.push}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="racro-pl export", description=__doc__)
    parser.add_argument("source", metavar="RUN|CKPT|ADAPTER", help="a run's folder, a .ckpt file, or a PEFT folder")
    parser.add_argument("out", metavar="OUT", help="new folder")
    parser.add_argument("--merge", action="store_true", help="add the adapter to the base weights: a whole model")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of a whole model (default: %(default)s)"
    )
    parser.add_argument("--base", metavar="HUB_ID", help="what others load the base by, where it was a local folder")
    parser.add_argument("--results", metavar="results.json", help="scores of `racro-pl test` for the model card")
    parser.add_argument("--push", metavar="HUB_ID", help="upload the folder to this Hugging Face repository, private")
    parser.add_argument("--public", action="store_true", help="make that repository public")
    return parser.parse_args(arguments)


def _read_results(path: str | None) -> Results | None:
    if path is None:
        return None
    try:
        return Results.from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RacroError(f"--results {path}: {error.strerror}; expected the results.json of a test") from error


def _base(given: str | None, trained: str, *, whole: bool, push: bool) -> str | None:
    """What others load the base by; None for a whole model whose base they cannot have.

    Args:
        given: by the user.
        trained: the base as this machine has it.

    Raises:
        RacroError: an adapter needs it, and it is a folder of this machine.
    """
    base = given or hub_id(trained)
    if whole and (base is None or hub_id(base) is None):
        return None
    if base is None or (push and hub_id(base) is None):
        raise RacroError(
            f"the adapter's base is the folder {base or trained}, which others do not have: name what they load it "
            "by with --base HUB_ID (or, without --push, a path that is right where the folder will be used)"
        )
    return base


def _push(folder: Path, repository: str, private: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        message = f"cannot push to {repository}: {first_line(error)}. The folder {folder} is complete"
        raise RacroError(message) from error
