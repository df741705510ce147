"""`racro-pl test` with a real reasoner behind a real vLLM server: one benchmark in two layouts gives one table."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import pytest

from racro_pl.cli import run
from racro_pl.evaluation.results import Results
from racro_pl.figure_world.world import figure_questions
from racro_pl.serving.vllm_process import VllmServer

pytestmark = pytest.mark.vllm
COUNT = 6


def write_layouts(folder: Path) -> tuple[Path, Path]:
    """MATH-V's own layout, and VLMEvalKit's, of the same questions."""
    own, tsv = folder / "testmini.jsonl", folder / "MathVision_MINI.tsv"
    (folder / "images").mkdir()
    lines = []
    with tsv.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["index", "image", "question", "choices", "answer", "category"])
        for number, drawn in enumerate(figure_questions("test", COUNT), 1):
            data = drawn.images[0].data
            (folder / f"images/{number}.png").write_bytes(data)
            text = f"How many shapes are drawn?\n<image{number}>"
            row = {"id": str(number), "question": text, "options": [], "answer": "3", "level": 1, "subject": "counting"}
            lines.append(json.dumps(row | {"image": f"images/{number}.png"}))
            table.writerow([number, base64.b64encode(data).decode(), text, "[]", "3", "counting"])
    own.write_text("\n".join(lines) + "\n")
    return own, tsv


def test_both_layouts_give_the_same_table(vllm_server: VllmServer, tmp_path):
    cells = []
    for path in write_layouts(tmp_path):
        code = run([
            "test", "--benchmarks", f"mathvision={path}", "--name", path.stem, "--runs", str(tmp_path / "runs"),
            "--captioners", "[{name: it, path: 'embedded:figure-captioner', max_new_tokens: 16}]",
            "--reasoners", vllm_server.url, "--sampling.temperature", "0", "--sampling.max_tokens", "48",
        ])  # fmt: skip
        assert code == 0
        folder = tmp_path / "runs" / path.stem / "version_0"
        cells.append(Results.from_json((folder / "results.json").read_text()).cells)
        # The table says which model answered, as its server names it.
        answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
        assert {answer["reasoner"] for answer in answers} == {"smollm2"}
        assert len(answers) == 2 * COUNT
        assert all(answer["text"].strip() for answer in answers)
    own, tsv = cells
    # Levels are in MATH-V's own layout only.
    for cell in own:
        cell.categories.pop("level")
    assert own == tsv
    assert all((cell.n, cell.expected, cell.unanswered) == (COUNT, 304, 0) for cell in own)
