"""Published configurations by name, copies of them, and their schema."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from racro_pl import cli
from racro_pl.commands import published
from racro_pl.types import RacroError

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict]:
    # In a process of its own: the order of a schema's parts is that in which their modules were imported.
    program = "from racro_pl.cli import run; run(['schema', 'fit']); print(chr(30)); run(['schema', 'test'])"
    printed = subprocess.check_output([sys.executable, "-c", program], text=True).split(chr(30))
    return {command: json.loads(text) for command, text in zip(("fit", "test"), printed, strict=True)}


def kind(path: Path) -> str:
    return "test" if "benchmarks" in yaml.safe_load(path.read_text()) else "fit"


def test_the_schemas_in_the_repository_are_today_s(schemas) -> None:
    for command, found in schemas.items():
        committed = json.loads((CONFIGS / "schema" / f"{command}.json").read_text())
        assert committed == found, f"run: racro-pl schema {command} > configs/schema/{command}.json"


def test_every_published_configuration_names_its_schema_and_is_valid(schemas) -> None:
    paths = sorted(CONFIGS.rglob("*.yaml"))
    assert len(paths) > 20
    for path in paths:
        first = path.read_text().splitlines()[0]
        assert (
            path.parent / first.removeprefix(published.SCHEMA_LINE)
        ).resolve() == CONFIGS / "schema" / f"{kind(path)}.json"
        jsonschema.Draft202012Validator(schemas[kind(path)]).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "change",
    [{"polcy": {}}, {"policy": {"path": 3}}, {"policy": {"lora": {"ranks": 3}}}, {"reward": {"votess": 1}},
     {"rollout": {"class_path": "racro_pl.rollout.TransformersEngine", "init_args": {"group": 4}}},
     {"objective": {"loss": "ppo"}}],
)  # fmt: skip
def test_a_mistake_does_not_fit_the_schema(schemas, change) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schemas["fit"]).validate({"model": change})


def test_names_become_paths_and_files_win(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(published.folder() / "quickstart.yaml")
    line = ["fit", "--config", "quickstart", "--config=cards/12gb_3b", "--name", "quickstart", "--config", "mine.yaml"]
    assert published.with_paths(line) == [
        "fit", "--config", path, f"--config={published.folder() / 'cards/12gb_3b.yaml'}", "--name", "quickstart",
        "--config", "mine.yaml",
    ]  # fmt: skip
    (tmp_path / "quickstart").write_text("")
    assert published.with_paths(["fit", "--config", "quickstart"])[2] == "quickstart"


def test_init_copies_a_configuration_with_its_schema_and_overwrites_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert published.main([]) == 0
    assert "cards/12gb_3b" in capsys.readouterr().out.split()
    assert published.main(["cards/12gb_3b"]) == 0
    copy = tmp_path / "12gb_3b.yaml"
    assert yaml.safe_load(copy.read_text()) == yaml.safe_load((CONFIGS / "cards/12gb_3b.yaml").read_text())
    assert copy.read_text().startswith("# yaml-language-server: $schema=racro-pl.schema.json\n")
    assert json.loads((tmp_path / "racro-pl.schema.json").read_text())["properties"]["model"]
    assert capsys.readouterr().out == (
        "wrote 12gb_3b.yaml and racro-pl.schema.json, by which editors check it; "
        "next: racro-pl fit --config 12gb_3b.yaml\n"
    )
    with pytest.raises(RacroError, match="is there already"):
        published.main(["cards/12gb_3b"])
    with pytest.raises(RacroError, match="no configuration 'nothing'"):
        published.main(["nothing"])


@pytest.mark.parametrize(
    ("command", "config"), [("fit", "quickstart"), ("validate", "quickstart"), ("test", "test_figures")]
)
def test_a_bare_command_says_what_to_type(command, config, capsys) -> None:
    assert cli.run([command]) == 2
    assert f"--config {config}" in capsys.readouterr().err
