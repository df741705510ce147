"""`racro-pl fit` with every real part: questions with images, the embedded captioner, a vLLM server as reasoner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from racro_pl.cli import run
from racro_pl.serving.vllm_process import VllmServer

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]
MATH_V = ROOT.parent / "shared/data/mathvision/testmini.jsonl"


def questions(folder: Path) -> Path:
    """Real MATH-V questions where they lie beside the project, else a few drawn here."""
    if MATH_V.is_file():
        return MATH_V
    rows = []
    for index in range(24):
        Image.new("RGB", (90 + index, 70), (10 * index, 80, 160)).save(folder / f"{index}.png")
        row = {"id": str(index), "question": f"What is {index} + 1? <image>", "answer": str(index + 1)}
        rows.append(json.dumps(row | {"image": f"{index}.png"}))
    (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "questions.jsonl"


def test_three_steps_on_real_questions(vllm_server: VllmServer, tmp_path, capfd):
    reasoner = "--model.reward.reasoner.init_args"
    code = run([
        "fit", "--config", str(ROOT / "configs/own_data_vllm.yaml"), "--runs", str(tmp_path), f"{reasoner}.url",
        vllm_server.url, "--data.reader.init_args.path", str(questions(tmp_path)), f"{reasoner}.max_tokens", "48",
        "--data.questions_per_step", "4",
    ])  # fmt: skip
    printed = capfd.readouterr()
    assert code == 0, printed.out + printed.err
    folder = tmp_path / "own_data/version_0"
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 4 * 4
    assert {row["step"] for row in rows} == {1, 2, 3}
    assert all(row["scored"] for row in rows)
    written = [row for row in rows if row["caption"].strip()]
    assert written
    assert all(len(row["reasoner_answers"][0]) > 0 for row in written)
    # The reward is what the verdict on the reasoner's own words says, never anything else.
    assert all(row["reward"] == row["parts"]["correct"] for row in rows)
    assert (folder / "adapter/adapter_model.safetensors").is_file()
