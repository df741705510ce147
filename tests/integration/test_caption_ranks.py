"""`racro-pl caption` over two processes: one file, and the pictures of every process that have no caption."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from racro_pl.figure_world.world import figure_questions

ROOT = Path(__file__).parents[2]
LAUNCHERS = {
    "lightning": ["-m", "racro_pl"],
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "racro_pl"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_write_one_file_and_tell_all_problems(tmp_path, launcher):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, question in enumerate(figure_questions("test", 5)):
        (folder / f"{number}.png").write_bytes(question.images[0].data)
    (folder / "5.png").write_bytes(b"no picture")  # the last one is the second process's
    output = tmp_path / "captions.jsonl"
    process = subprocess.run(
        [sys.executable, *LAUNCHERS[launcher], "caption", str(folder), "--captioner", "embedded:figure-captioner",
         "--max_tokens", "16", "--accelerator", "cpu", "--devices", "2", "--output", str(output)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1000,
    )  # fmt: skip
    assert process.returncode == 1, process.stdout
    assert "5 of 6 captions are in" in process.stdout
    assert "1 pictures have none: 1x unusable image" in process.stdout
    written = [json.loads(line)["image"] for line in output.read_text().splitlines()]
    assert written == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert not list(tmp_path.glob("captions-rank*"))
