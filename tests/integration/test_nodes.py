"""Two nodes, played by two launchers on this machine, and the scripts that start them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from racro_pl.serving.addresses import free_port
from tests.fakes.environment import environment

ROOT = Path(__file__).parents[2]
TORCHRUN, SLURM = ROOT / "scripts/torchrun_fit.sh", ROOT / "scripts/slurm_fit.sbatch"

# Every process notes which files below RUNS it opens for writing, under its rank.
NOTE_WRITES = """
import os, sys
def note(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].startswith(os.environ["RUNS"]):
        if args[2] & (os.O_WRONLY | os.O_RDWR):
            line = os.path.basename(args[0]) + "\\n"
            own = os.open(os.environ["NOTES"] + os.environ.get("RANK", "-"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(own, line.encode()); os.close(own)
sys.addaudithook(note)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_nodes_make_one_run_and_only_rank_0_writes_it(tmp_path, strategy):
    (tmp_path / "sitecustomize.py").write_text(NOTE_WRITES)
    port = str(free_port("127.0.0.1"))
    shared = environment(
        tmp_path, PYTHON=sys.executable, NODES="2", MAIN="127.0.0.1", PORT=port, DEVICES="1",
        RUNS=str(tmp_path / "runs"), NOTES=str(tmp_path / "written-by-"),
    )  # fmt: skip
    command = [
        str(TORCHRUN), "--config", str(ROOT / "configs/quickstart.yaml"), "--trainer.strategy", strategy,
        "--trainer.max_steps", "2", "--data.questions_per_step", "4", "--runs", str(tmp_path / "runs"),
        "--trainer.callbacks.init_args.questions", "9",
    ]  # fmt: skip
    nodes = []
    for node in (1, 0):  # the main node may well be the last to come up
        with (tmp_path / f"said-{node}").open("w") as said:
            own = shared | {"NODE": str(node)}
            nodes.append(subprocess.Popen(command, env=own, stdout=said, stderr=subprocess.STDOUT))
    try:
        # A rank that waits for something that the other does not do waits for ever: the limit is the test.
        codes = [node.wait(timeout=1000) for node in nodes]
    finally:
        for node in nodes:
            node.terminate()
    assert codes == [0, 0], "\n".join((tmp_path / f"said-{node}").read_text()[-3000:] for node in (0, 1))

    assert [path.name for path in (tmp_path / "runs/quickstart").iterdir()] == ["version_0"]
    folder = tmp_path / "runs/quickstart/version_0"
    for name in ("adapter/adapter_model.safetensors", "held_out.json", "metrics.csv", "checkpoints/last.ckpt"):
        assert (folder / name).is_file(), name
    by_rank = [
        {re.sub(r"\.[0-9a-f]{8}\.partial$", ".partial", name) for name in notes.read_text().split()}
        for notes in (tmp_path / f"written-by-{rank}" for rank in range(2))
    ]
    assert by_rank[1] == {"captions-rank1.jsonl", "watch-rank1.jsonl"}  # what was written of its own questions
    # Files that are put in place whole are written under a name of their own first.
    assert {"captions-rank0.jsonl", "metrics.csv", ".config.yaml.partial", ".held_out.json.partial"} <= by_rank[0]


@pytest.mark.parametrize("script", [TORCHRUN, SLURM])
def test_scripts_parse_and_say_how_they_are_used(script, tmp_path):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    variables = os.environ | {"SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NODELIST": "n[1-3]"}
    variables["PATH"] = f"{write_slurm(tmp_path)}:{variables['PATH']}"
    done = subprocess.run(["bash", str(script)], env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: " in done.stderr


def write_slurm(folder: Path) -> Path:
    """Stand-ins that answer for a cluster of three nodes, and note what they are asked to start."""
    programs = folder / "bin"
    programs.mkdir()
    for name, body in {
        "scontrol": r"printf 'n1\nn2\nn3\n'",
        "curl": "exit 0",
        # Servers stay until they are ended.
        "srun": 'echo "$@" >> steps; env | grep -c "^VLLM_API_KEY=.\\{48\\}$" >> keys; '
        'case "$*" in *" serve "*) exec sleep 60;; esac; echo "$MASTER_ADDR" > main',
    }.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(0o755)
    return programs


def test_a_slurm_job_hands_its_reasoners_to_its_trainers(tmp_path):
    variables = os.environ | {
        "PATH": f"{write_slurm(tmp_path)}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_NODELIST": "n[1-3]", "PYTHON": sys.executable,
    }  # fmt: skip
    command = ["bash", str(SLURM), "--config", "own.yaml"]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    serve, train = sorted((tmp_path / "steps").read_text().splitlines(), key=lambda step: " fit " in step)
    assert "--nodelist=n3" in serve
    assert "--host n3 --port 8000 --data-parallel-size 2" in serve
    assert "--nodes=2 --ntasks=4 --ntasks-per-node=2 --nodelist=n1,n2 --kill-on-bad-exit=1" in train
    assert "SLURM_NNODES=2 SLURM_NTASKS=4" in train
    assert " fit --config own.yaml --config runs/slurm-7/reasoners.yaml " in train
    assert train.endswith("--trainer.num_nodes 2 --trainer.devices 2")
    assert (tmp_path / "main").read_text() == "n1\n"
    # The servers ask for a key, which is in the environment of all steps, and in no file.
    assert (tmp_path / "keys").read_text().split() == ["1", "1"]
    text = (tmp_path / "runs/slurm-7/reasoners.yaml").read_text()
    pool = yaml.safe_load(text)["model"]["reward"]["reasoner"]
    assert pool["class_path"] == "racro_pl.reward.ReasonerPool"
    (reasoner,) = pool["init_args"]["reasoners"]
    assert reasoner["init_args"]["url"] == "http://n3:8000/v1"
    assert reasoner["init_args"]["api_key_env"] == "VLLM_API_KEY"
