"""The configurations that come with the package, by name; ``racro-pl init`` copies one."""

from __future__ import annotations

import os
from pathlib import Path

from racro_pl.commands.suggestions import CommandParser
from racro_pl.types import RacroError

SCHEMA_LINE = "# yaml-language-server: $schema="


def folder() -> Path:
    """Where they are: in the installed package, or in the repository that it was installed from."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """What ``--config NAME`` takes: ``quickstart``, ``cards/12gb_3b``, ..."""
    return [path.relative_to(folder()).with_suffix("").as_posix() for path in sorted(folder().rglob("*.yaml"))]


def with_paths(arguments: list[str]) -> list[str]:
    """The arguments with names of published configurations written out as paths. A file of that name wins."""
    resolved, is_config = [], False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_config:
            argument = _path(argument)
        elif flag == "--config" and equals:
            argument = f"{flag}={_path(value)}"
        is_config = argument == "--config"
        resolved.append(argument)
    return resolved


def _path(name: str) -> str:
    if os.path.exists(name) or name.endswith((".yaml", ".yml")) or name not in names():
        return name
    return str(folder() / f"{name}.yaml")


def main(arguments: list[str]) -> int:
    """Run ``init``; returns the exit code.

    Raises:
        RacroError: the name is not known, or the file is there already.
    """
    parser = CommandParser(
        prog="racro-pl init", description="Copy a published configuration, to be edited; without NAME: list them."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="such as quickstart")
    name = parser.parse_args(arguments).name
    if name is None:
        print("\n".join(names()))
        return 0
    if name not in names():
        raise RacroError(f"no configuration {name!r}; racro-pl init lists them")
    target, schema = Path(f"{Path(name).name}.yaml"), Path("racro-pl.schema.json")
    if target.exists():
        raise RacroError(f"{target} is there already; move it away, or work on it")
    text = (folder() / f"{name}.yaml").read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    wrote = str(target)
    if first.startswith(SCHEMA_LINE):
        source = (folder() / f"{name}.yaml").parent / first.removeprefix(SCHEMA_LINE)
        schema.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        text = f"{SCHEMA_LINE}{schema}\n{rest}"
        wrote += f" and {schema}, by which editors check it"
    target.write_text(text, encoding="utf-8")
    print(f"wrote {wrote}; next: racro-pl {'test' if 'test' in name else 'fit'} --config {target}")
    return 0
