"""``racro-pl schema fit|test``: the JSON schema of a configuration, for editors."""

from __future__ import annotations

import json
from typing import Any

from racro_pl import reward
from racro_pl.commands.quiet import quiet_libraries
from racro_pl.commands.suggestions import CommandParser


def main(arguments: list[str]) -> int:
    """Print a schema; returns the exit code."""
    parser = CommandParser(prog="racro-pl schema", description=__doc__)
    parser.add_argument("command", choices=("fit", "test"), help="whose configuration")
    options = parser.parse_args(arguments)
    quiet_libraries()
    print(json.dumps(schema(options.command), indent=1, ensure_ascii=False))
    return 0


def schema(command: str) -> dict[str, Any]:
    """The JSON schema of a command's configuration."""
    # The classes that a file may name are those that are loaded, and these names load on first use.
    for name in reward.__all__:
        getattr(reward, name)
    return _fit() if command == "fit" else _test()


def _fit() -> dict[str, Any]:
    from lightning.pytorch.cli import LightningArgumentParser

    from racro_pl.commands.lightning import add_own_arguments
    from racro_pl.data.datamodule import RacroDataModule
    from racro_pl.training.module import RacroModule

    parser = LightningArgumentParser()
    add_own_arguments(parser)
    parser.add_lightning_class_args(RacroModule, "model", subclass_mode=False)
    parser.add_lightning_class_args(RacroDataModule, "data", subclass_mode=False)
    found = json.loads(parser.get_completion_script("jsonschema"))
    # Lightning's own: its types lead to every class that any package derives from them.
    found["properties"] |= {
        "trainer": {"type": "object", "description": "Arguments of lightning's Trainer; see racro-pl fit --help."},
        "seed_everything": {"type": ["integer", "boolean"], "description": "Seed of all random numbers."},
        "ckpt_path": {"type": ["string", "null"], "description": "A checkpoint to resume from."},
        "weights_only": {"type": ["boolean", "null"]},
    }
    rewarded = found["properties"]["model"]["properties"]["reward"]
    # A section without class_path is the plain Scorer's arguments.
    rewarded["anyOf"].append(_init_args(found, "racro_pl.reward.Scorer"))
    return _optional(found)


def _init_args(found: dict[str, Any], class_path: str) -> dict[str, Any]:
    """The schema of a class's arguments, as it stands beside its ``class_path``."""
    for definition in found["$defs"].values():
        for option in [definition, *definition.get("anyOf", [])]:
            properties = option.get("properties", {})
            if properties.get("class_path", {}).get("const") == class_path:
                return properties["init_args"]
    raise KeyError(class_path)


def _test() -> dict[str, Any]:
    from racro_pl.commands.test import build_parser

    return _optional(json.loads(build_parser().get_completion_script("jsonschema")))


def _optional(found: Any) -> Any:
    """The schema without ``required``: a file may leave parts to other files and flags."""
    if isinstance(found, list):
        return [_optional(item) for item in found]
    if not isinstance(found, dict):
        return found
    return {
        name: _optional(value) for name, value in found.items() if name != "required" or not isinstance(value, list)
    }
