"""The command line as a user meets it: one message per mistake, an exit code, and no traceback."""

from __future__ import annotations

import io
import json
import logging
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from racro_pl.cli import run
from tests.fakes.environment import environment
from tests.fakes.reasoner_server import FaultServer

ROOT = Path(__file__).parents[2]
# The layers of configs/experiment make a configuration together only: tests/integration/test_recipes.py.
CONFIGS = [
    path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parents[1] != ROOT / "configs/experiment"
]
QUICKSTART = str(ROOT / "configs/quickstart.yaml")
OWN_DATA = str(ROOT / "configs/own_data_vllm.yaml")


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    monkey = pytest.MonkeyPatch()
    monkey.setattr(sys, "argv", ["racro-pl", *arguments])
    # Handlers keep the stream of the test in which their library was imported.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                monkey.setattr(handler, "stream", sys.stderr)
    try:
        code = run(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        monkey.undo()
    printed = capfd.readouterr()
    return code, printed.out + printed.err


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def huge_png() -> bytes:
    """60,000 x 60,000 pixels, by its header."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return png(1, 1)[:8] + chunk + png(1, 1)[33:]


def data_set(folder: Path, rows: list[dict]) -> str:
    (folder / "good.png").write_bytes(png(80, 60))
    (folder / "broken.png").write_bytes(png(80, 60)[:40])
    (folder / "huge.png").write_bytes(huge_png())
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def good_rows(count: int) -> list[dict]:
    return [{"id": str(i), "question": f"What is {i}?", "answer": "42", "image": "good.png"} for i in range(count)]


def fit_own_data(capfd, tmp_path, rows, url, *more: str) -> tuple[int, str]:
    reasoner = "--model.reward.reasoner.init_args"
    return call(
        capfd, "fit", "--config", OWN_DATA, "--runs", str(tmp_path / "runs"), f"{reasoner}.url", url,
        f"{reasoner}.deadline_s", "100", f"{reasoner}.attempts", "2", "--trainer.max_steps", "1",
        "--data.questions_per_step", "2", "--data.reader.init_args.path", data_set(tmp_path, rows), *more,
    )  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses_and_prints_itself(config, capfd):
    command = "test" if config.stem.startswith("test_") else "fit"
    code, printed = call(capfd, command, "--config", str(config), "--print_config")
    assert code == 0
    assert config.stem.startswith(yaml.safe_load(printed)["name"])


def test_help_is_quick_because_it_loads_nothing_heavy():
    program = "import sys, racro_pl.cli as c; c.run(['--help']); print({'torch', 'lightning'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.stdout.splitlines()[-1] == "set()"
    assert "racro-pl fit --config quickstart" in done.stdout


def test_unknown_command(capfd):
    code, printed = call(capfd, "trian")
    assert code == 2
    assert "unknown command 'trian'; expected one of fit" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.objective.lerning_rate", "1"], "lerning_rate"),
        (["--model.rollout.init_args.group_size", "1"], "group_size is 1; a group of one has nothing to compare with"),
        (["--model.policy.quantization", "nf4", "--model.policy.lora", "null"], "quantization needs LoRA"),
        (["--trainer.gradient_clip_val", "1.0"], "set model.objective.max_grad_norm"),
        (["--trainer.accumulate_grad_batches", "2"], "set model.objective.micro_batch_size"),
        (["--model.policy.path", "no/such/folder"], "policy.path 'no/such/folder': cannot load it"),
        (["--model.policy.path", "embedded:nobody"], "expected one of embedded:figure-captioner"),
        (["--threads", "0"], "threads"),
        (["--data.reader.init_args.train", "3"], "3 train questions are fewer than one step's 16"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(capfd, tmp_path, arguments, message):
    code, printed = call(capfd, "fit", "--config", QUICKSTART, "--runs", str(tmp_path), *arguments)
    assert code != 0
    assert message in printed
    assert "Traceback" not in printed


def test_a_bad_value_inside_a_part_that_may_be_null_is_one_line(capfd, tmp_path):
    code, printed = call(capfd, "fit", "--config", QUICKSTART, "--runs", str(tmp_path), "--model.reward.budget", "0")
    assert code == 1
    last = printed.strip().splitlines()[-1]
    assert last == "racro-pl fit: got budget=0.0, expected more than 0, or null for no bound"
    assert not list(tmp_path.iterdir())


def test_a_config_file_with_an_unknown_key(capfd, tmp_path):
    config = tmp_path / "typo.yaml"
    config.write_text("model: {objectiv: {learning_rate: 1}}\n")
    code, printed = call(capfd, "fit", "--config", QUICKSTART, "--config", str(config))
    assert code == 2
    assert "objectiv" in printed


@pytest.mark.usefixtures("quick_refusal")
def test_a_reasoner_that_refuses(capfd, tmp_path):
    before = set(threading.enumerate())
    code, printed = fit_own_data(capfd, tmp_path, good_rows(4), "http://127.0.0.1:9/v1")
    assert code == 1
    assert "http://127.0.0.1:9" in printed
    assert "Traceback" not in printed
    # A failed run ends its requests, and the thread they live on, as a finished one does.
    assert not any(thread.name == "reasoner-http" for thread in set(threading.enumerate()) - before)
    assert not list(tmp_path.rglob("captions.jsonl"))


def test_a_reasoner_that_serves_another_model(capfd, tmp_path):
    with FaultServer(models=["other"]) as server:
        code, printed = fit_own_data(
            capfd, tmp_path, good_rows(4), server.url, "--model.reward.reasoner.init_args.model", "wanted"
        )
    assert code == 1
    assert "wanted" in printed
    assert "other" in printed


def test_a_reasoner_that_hangs_stops_the_run_with_a_checkpoint(capfd, tmp_path):
    """It lists its models, so the start is fine, and then never answers."""
    with FaultServer(script=["ok", "hang"]) as server:
        code, printed = fit_own_data(
            capfd, tmp_path, good_rows(4), server.url, "--model.reward.reasoner.init_args.deadline_s", "5"
        )
    assert code == 1
    assert "captions have no score" in printed
    assert "timeout" in printed
    assert list(tmp_path.rglob("stopped-step=1.ckpt"))


def test_bad_rows_are_dropped_and_counted_and_the_rest_is_learnt_from(capfd, caplog, tmp_path):
    rows = [
        *good_rows(2),
        {"id": "a", "question": "No answer?", "image": "good.png"},
        {"id": "b", "question": "Broken?", "answer": "1", "image": "broken.png"},
        {"id": "c", "question": "Huge?", "answer": "1", "image": "huge.png"},
        {"id": "d", "question": "Long? " + "word " * 2000, "answer": "1", "image": "good.png"},
    ]
    with FaultServer() as server:
        code, printed = fit_own_data(capfd, tmp_path, rows, server.url)
    assert code == 0
    assert "data: train 2 kept, 4 dropped: unusable image 2, no answer 1, prompt too long 1" in caplog.text + printed
    captions = [json.loads(line) for line in next(tmp_path.rglob("captions.jsonl")).read_text().splitlines()]
    assert {row["question_id"] for row in captions} == {"0", "1"}
    assert all(row["reward"] == 1.0 and row["extracted"] == ["42"] for row in captions if row["caption"].strip())


def test_an_empty_data_set(capfd, tmp_path):
    code, printed = fit_own_data(capfd, tmp_path, [], "http://127.0.0.1:9/v1")
    assert code == 1
    assert "no train questions" in printed
    assert "Traceback" not in printed


def test_run_folder_holds_all_it_promises_and_nothing_is_overwritten(capfd, tmp_path):
    for _ in range(2):
        with FaultServer() as server:
            assert fit_own_data(capfd, tmp_path, good_rows(4), server.url)[0] == 0
    for version in ("version_0", "version_1"):
        folder = tmp_path / "runs/own_data" / version
        names = {path.name for path in folder.iterdir()}
        assert {"config.yaml", "metrics.csv", "captions.jsonl", "checkpoints", "adapter"} <= names
        assert any(name.startswith("events.out.tfevents") for name in names)
        assert {"last.ckpt", "last-adapter"} <= {path.name for path in (folder / "checkpoints").iterdir()}


def test_python_dash_m(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "racro_pl", "--version"], capture_output=True, text=True, timeout=250,
        env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.strip() == "0.1.0"


def test_the_saved_configuration_runs_as_it_is(capfd, tmp_path, monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    with FaultServer() as server:
        assert fit_own_data(capfd, tmp_path, good_rows(4), server.url, "--threads", "1")[0] == 0
        assert set_to == [1]
        saved = tmp_path / "runs/own_data/version_0/config.yaml"
        code, printed = call(capfd, "fit", "--config", str(saved))
        assert code == 0, printed
        again = tmp_path / "runs/own_data/version_1"
        assert yaml.safe_load((again / "config.yaml").read_text()) == yaml.safe_load(saved.read_text())
        code, printed = call(
            capfd, "validate", "--config", str(saved), "--ckpt_path", str(again / "checkpoints/last.ckpt"),
            "--data.reader.init_args.validation_path", str(tmp_path / "questions.jsonl"),
        )  # fmt: skip
    assert code == 0, printed
    assert "val/accuracy" in printed
    assert set_to == [1, 1, 1]
