"""What a configuration may import, and what it must not hold: both before anything of it is run or repeated."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
import yaml

from racro_pl.cli import run
from racro_pl.commands import lightning
from racro_pl.commands import test as evaluation
from racro_pl.commands.doctor import check_config
from racro_pl.commands.guard import guard, refuse_keys
from racro_pl.types import RacroError
from tests.fakes.environment import ROOT
from tests.helpers.preloaded import CONTEXT

QUICKSTART = ROOT / "configs/quickstart.yaml"
SECRET = "hunter2-SENTINEL"
STRANGE = "strangers_code.Thing"


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """A module on the path that leaves a mark when it is imported."""
    (tmp_path / "strangers_code.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_with(folder, change):
    """The quickstart's configuration, changed, in a file."""
    config = yaml.safe_load(QUICKSTART.read_text())
    change(config)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def in_reasoner(config):
    config["model"]["reward"]["reasoner"] = {"class_path": STRANGE, "init_args": {}}


def in_reasoner_without_class_path(config):
    config["model"]["reward"]["reasoner"] = STRANGE


def in_list(config):
    config["trainer"]["callbacks"].append({"class_path": STRANGE})


def in_init_args(config):
    inner = {"class_path": STRANGE}
    config["model"]["reward"]["reasoner"] = {
        "class_path": "racro_pl.reward.ReasonerPool", "init_args": {"reasoners": [inner]},
    }  # fmt: skip


def in_file_of_a_file(config):
    with open("reader.yaml", "w") as file:
        file.write(f"class_path: {STRANGE}\n")
    config["data"]["reader"] = "reader.yaml"


IN_CONFIG = [in_reasoner, in_reasoner_without_class_path, in_list, in_init_args, in_file_of_a_file]


@pytest.mark.parametrize("change", IN_CONFIG)
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_class_of_another_package_is_refused_before_it_is_imported(strange, change, command):
    file = config_with(strange, change)
    with pytest.raises(RacroError, match=f"names '{STRANGE}'.*add --allow-imports to the command line"):
        lightning.main([command, "--config", file])
    assert not (strange / "imported").exists()


@pytest.mark.parametrize(
    "flags",
    [
        [f"--model.rollout={STRANGE}"],
        ["--model.rollout.class_path", STRANGE],
        [f"--trainer.callbacks+={STRANGE}"],
        ["--trainer.logger", f"{{class_path: {STRANGE}}}"],
        [f"--trainer.plugins=[{{class_path: {STRANGE}}}]"],
        ["--data.reader", f"{STRANGE}"],
    ],
    ids=lambda flags: flags[0].split("=")[0],
)
def test_a_flag_may_not_name_one_either(strange, flags):
    with pytest.raises(RacroError, match=f"names '{STRANGE}'.*--allow-imports"):
        lightning.main(["fit", "--config", str(QUICKSTART), *flags])
    assert not (strange / "imported").exists()


def test_a_re_export_is_what_it_is_where_it_was_made(strange):
    """``os`` is in reach of every module that imports it."""
    with pytest.raises(RacroError, match="--allow-imports"):
        lightning.main(["fit", "--config", str(QUICKSTART), "--model.rollout=racro_pl.cli.os.system"])


def test_the_other_commands_that_read_configurations_refuse_it_too(strange):
    (finding, *_) = check_config(config_with(strange, in_reasoner))
    assert finding.status == "fail"
    assert "--allow-imports" in finding.advice
    file = strange / "test.yaml"
    reasoners = [{"reasoner": {"class_path": STRANGE}}]
    file.write_text(yaml.safe_dump({"benchmarks": "figures", "captioners": "x", "reasoners": reasoners}))
    with pytest.raises(RacroError, match=f"names '{STRANGE}'.*--allow-imports"):
        evaluation.main(["--config", str(file)])
    assert not (strange / "imported").exists()


def test_a_configuration_cannot_give_itself_permission(strange, capsys):
    def change(config):
        in_reasoner(config)
        config["allow_imports"] = True

    with pytest.raises((RacroError, SystemExit)):
        lightning.main(["fit", "--config", config_with(strange, change)])
    assert not (strange / "imported").exists()


@pytest.mark.parametrize("command", [[], ["fit"], ["validate"], ["test"], ["doctor"]], ids=str)
def test_the_help_says_that_a_configuration_is_a_program(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")  # argparse breaks lines at hyphens too
    with contextlib.suppress(SystemExit):
        run([*command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "A configuration is a program: the classes that it names are imported and run." in printed
    assert "--allow-imports on the command line" in printed


def fit_with_the_switch(strange: Path, file: str, errors: Path) -> None:
    sys.path.insert(0, str(strange))
    with errors.open("w") as sys.stderr:
        sys.exit(run(["fit", "--config", file, "--allow-imports"]))


def test_with_the_switch_it_is_imported(strange, tmp_path):
    """In a process of its own: what is restricted once stays so."""
    errors = tmp_path / "errors"
    process = CONTEXT.Process(target=fit_with_the_switch, args=(strange, config_with(strange, in_reasoner), errors))
    process.start()
    process.join()
    assert process.exitcode != 0  # a Thing is no Reasoner
    assert "--allow-imports" not in errors.read_text()
    assert "Thing" in errors.read_text()
    assert (strange / "imported").exists()


def test_the_switch_does_not_open_what_only_does_harm():
    with pytest.raises(RacroError, match="'os.system'"):
        lightning.main(["fit", "--config", str(QUICKSTART), "--model.rollout=os.system", "--allow-imports"])


# ------------------------------------------------------------------ keys

HOLDING = {
    "a server's environment": {"env": {"OPENAI_API_KEY": SECRET}},
    "a server's arguments": {"extra_args": ["--enforce-eager", "--api-key", SECRET]},
    "an argument with its value": {"extra_args": [f"--api-key={SECRET}"]},
    "a header": {"extra_body": {"headers": {"Authorization": f"Bearer {SECRET}"}}},
    "a pool": {"reasoners": [{"init_args": {"extra_body": {"api_key": SECRET}}}]},
    "a logger": {"logger": {"init_args": {"api_key": SECRET}}},
    "a password in a URL": {"url": f"http://me:{SECRET}@host/v1"},
    "a key in a URL": {"url": f"http://host/v1?api_key={SECRET}"},
    "a key by its look": {"extra_body": {"x": "sk-proj-0123456789abcdef"}},
    "a token by its look": {"anything": "hf_abcdefghijklmnopqrstuvwxyz"},
}


@pytest.mark.parametrize("settings", HOLDING.values(), ids=HOLDING)
def test_a_key_in_a_setting_is_refused_without_being_repeated(settings):
    with pytest.raises(RacroError, match="environment") as refused:
        refuse_keys({"model": settings})
    assert "model." in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "0123456789abcdef" not in str(refused.value)


def test_what_only_looks_a_little_like_one_passes():
    refuse_keys(
        {
            "api_key_env": "MY_API_KEY", "max_tokens": 8, "max_new_tokens": "8", "pad_token": "<pad>", "tokenizer": "x",
            "path": "hf-internal-testing/tiny-random-model", "url": "http://host:8000/v1", "id_key": "id", "key": "id",
            "env": {"CUDA_VISIBLE_DEVICES": "0"}, "extra_args": ["--max-num-batched-tokens", "100"], "api_key": None,
        }
    )  # fmt: skip


@pytest.mark.parametrize("config", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_configurations_pass(config):
    guard(["--config", str(config)])


def test_it_is_refused_before_the_parser_could_repeat_it(tmp_path, capfd):
    """A setting that is mistyped beside it would be shown with all that surrounds it."""

    def change(config):
        config["model"]["rollout"] = {
            "class_path": "racro_pl.rollout.VllmEngine",
            "init_args": {"serve": {"env": {"HF_TOKEN": SECRET}, "modle": 1}},
        }

    with pytest.raises(RacroError, match="model.rollout.init_args.serve.env.HF_TOKEN holds a key"):
        lightning.main(["fit", "--config", config_with(tmp_path, change)])
    assert SECRET not in "".join(capfd.readouterr())


def test_a_key_in_a_file_that_a_file_names_is_found_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollout.yaml").write_text(
        f"class_path: racro_pl.rollout.VllmEngine\ninit_args: {{server: {{env: {{HF_TOKEN: {SECRET}}}}}}}\n"
    )
    file = config_with(tmp_path, lambda config: config["model"].update(rollout="rollout.yaml"))
    with pytest.raises(RacroError, match="holds a key") as refused:
        lightning.main(["fit", "--config", file, "--runs", str(tmp_path / "runs")])
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "runs").exists()
