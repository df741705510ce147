"""What this program never does, looked for in its source: unpickle, evaluate, run remote code, listen to the world."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from racro_pl.commands import serve
from racro_pl.policy.config import PolicySettings
from racro_pl.rollout import RunInfo
from racro_pl.rollout.vllm.server import ServerSettings, rollout_server
from racro_pl.serving.network import is_local_address
from racro_pl.serving.vllm_process import VllmServer

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("racro_pl", "scripts") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps",
    "pickle.Unpickler", "marshal.loads", "shelve.open", "joblib.load", "dill.loads", "os.system", "os.popen",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load", "sympy.parse_expr", "parse_expr",
    "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip
"""By their dotted names. ``re.compile`` and ``model.eval()`` are other names."""
MUST_BE = {"weights_only": True, "use_safetensors": True, "trust_remote_code": False, "shell": False,
           "allow_pickle": False}  # fmt: skip
"""Arguments that may only have this value where they are written down."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def problems(path: Path) -> list[str]:
    found = []
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno} {name}"
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in FORBIDDEN_CALLS:
            found.append(where)
        if name == "torch.load" and "weights_only" not in given:
            found.append(f"{where} without weights_only")
        for argument, value in MUST_BE.items():
            if name.endswith(".save_checkpoint") and argument == "weights_only":
                continue  # of what is written: the weights alone, or the trainer's state too
            if argument in given and not (isinstance(given[argument], ast.Constant) and given[argument].value == value):
                found.append(f"{where} with {argument}={ast.unparse(given[argument])}")
    return found


def test_nothing_is_unpickled_evaluated_or_run_from_elsewhere():
    assert len(SOURCES) > 100
    assert [problem for path in SOURCES for problem in problems(path)] == []


@pytest.mark.parametrize(
    "line",
    ["eval(text)", "import pickle; pickle.loads(data)", "torch.load(path)", "torch.load(path, weights_only=False)",
     "AutoModel.from_pretrained(path, trust_remote_code=True)", "subprocess.run(line, shell=True)", "yaml.load(text)",
     "AutoModel.from_pretrained(path, trust_remote_code=flag)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(tmp_path, line):
    file = tmp_path / "bad.py"
    file.write_text(line)
    assert len(problems(file)) == 1


def listens_on(command: list[str]) -> str:
    return command[command.index("--host") + 1]


def test_servers_that_we_start_listen_on_this_machine_alone(tmp_path):
    parser = serve.argparse.ArgumentParser()
    serve.add_arguments(parser)
    assert parser.parse_args(["reasoner", "--model", "m"]).host == "127.0.0.1"
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    policy = PolicySettings(path=str(tmp_path))
    server = VllmServer(tmp_path, ServerSettings(port=1))
    assert listens_on(server.command()) == "127.0.0.1"
    assert is_local_address(server.host)
    # Rollouts make the server read folders: not even this machine's other users may ask for that.
    command = rollout_server(ServerSettings(), RunInfo(policy, tmp_path, "run")).command()
    assert "--uds" in command
    assert not {"--host", "--port"} & set(command)


def test_no_function_here_listens_elsewhere_by_default():
    # Whatever takes a host has a loopback address as its default.
    hosts = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        for argument, default in zip(node.args.args[::-1], node.args.defaults[::-1], strict=False)
        if argument.arg == "host" and ast.unparse(default) not in ("'127.0.0.1'", "'localhost'")
    ]
    assert hosts == []
    assert VllmServer(".").host == "127.0.0.1"
