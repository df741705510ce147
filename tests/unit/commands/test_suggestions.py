"""A misspelt command, flag or key is answered with the one that may have been meant."""

from __future__ import annotations

import pytest
import yaml

from racro_pl.cli import run
from racro_pl.commands import published
from racro_pl.commands.suggestions import did_you_mean


def said(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(list(arguments))
    assert stop.value.code == 2
    return capsys.readouterr().err


def config(tmp_path, **changes) -> str:
    content = yaml.safe_load((published.folder() / "quickstart.yaml").read_text())
    for name, value in changes.items():
        content["model"][name] = value
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["fit", "--config", "quickstart", "--model.objectiv.learning_rate", "3"], "'--model.objective.learning_rate'"),
        (["fit", "--config", "quickstart", "--model.rollout.init_args.group_siz", "3"], "'group_size'"),
        (["test", "--config", "test_figures", "--benchmark_", "x"], "'--benchmarks'"),
        (["ask", "--captoner", "x", "a.png", "Why?"], "'--captioner'"),
        (["serve", "pipeline", "--captoner", "x"], "'--captioner'"),
        (["export", "--mergee", "a", "b"], "'--merge'"),
    ],
)
def test_flags(capsys, arguments, meant):
    message = said(capsys, *arguments)
    assert message.count("did you mean") == 1
    assert f"did you mean {meant}?" in message


def test_keys_of_a_file(tmp_path, capsys):
    wrong = config(tmp_path, objective={"learning_rat": 0.1})
    assert "did you mean 'model.objective.learning_rate'?" in said(capsys, "fit", "--config", wrong)
    wrong = config(
        tmp_path, rollout={"class_path": "racro_pl.rollout.TransformersEngine", "init_args": {"group_siz": 2}}
    )
    assert "did you mean 'group_size'?" in said(capsys, "fit", "--config", wrong)


def test_commands(capsys):
    assert run(["tset"]) == 2
    assert "unknown command 'tset'; did you mean 'test'?" in capsys.readouterr().err
    assert run(["paint"]) == 2
    assert "expected one of fit, validate" in capsys.readouterr().err


def test_nothing_similar_is_suggested_by_nothing():
    assert did_you_mean("zebra", ["learning_rate", "betas"]) == ""


def test_a_reasoner_server_without_vllm_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr("racro_pl.commands.serve.find_spec", lambda name: None)
    assert run(["serve", "reasoner", "--model", "m"]) == 1
    message = capsys.readouterr().err
    assert "pip install 'racro-pl[vllm]'" in message
    assert "--python" in message


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completions_for_a_shell(shell, capsys):
    pytest.importorskip("shtab", reason="a dependency of the package")
    with pytest.raises(SystemExit) as stop:
        run(["test", "--print_completion", shell])
    assert stop.value.code == 0
    assert "--benchmarks" in capsys.readouterr().out
