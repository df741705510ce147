"""The same questions from JSON lines, a table, and parquet with the images inside: the same run, bit for bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

from racro_pl.figure_world.world import figure_questions
from tests.integration.test_cli import QUICKSTART, call

FLAGS = ["--data.questions_per_step=4", "--model.rollout.init_args.group_size=2", "--trainer.max_steps=2",
         "--trainer.val_check_interval=2", "--trainer.num_sanity_val_steps=0", "--trainer.callbacks=[]"]  # fmt: skip


@pytest.fixture
def readers(tmp_path: Path) -> dict[str, dict]:
    """The figure world's questions in three kinds of files, by the reader of each."""
    rows, inside = [], []
    (tmp_path / "images").mkdir()
    for question in figure_questions("train", 12, seed=3):
        image = question.images[0].data
        (tmp_path / f"images/{question.id}.png").write_bytes(image)
        row = {"id": question.id, "question": question.text, "answer": question.answer,
               "answer_type": question.answer_type, "category": question.category}  # fmt: skip
        rows.append(row | {"image": f"images/{question.id}.png"})
        inside.append(row | {"image": {"bytes": image, "path": None}})
    (tmp_path / "toys.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "toys.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(inside), tmp_path / "toys.parquet")
    return {
        "jsonl": {"class_path": "racro_pl.data.JsonlReader", "init_args": {"path": f"{tmp_path}/toys.jsonl"}},
        "csv": {"class_path": "racro_pl.data.TableReader", "init_args": {"path": f"{tmp_path}/toys.csv"}},
        "parquet": {"class_path": "racro_pl.data.HubReader", "init_args": {"dataset": f"{tmp_path}/toys.parquet"}},
    }


def test_the_kind_of_file_changes_no_bit_of_a_run(readers, tmp_path, capfd):
    adapters, captions = {}, {}
    for kind, reader in readers.items():
        config = yaml.safe_load(Path(QUICKSTART).read_text())
        config["data"]["reader"] = reader
        path = tmp_path / f"{kind}.yaml"
        path.write_text(yaml.safe_dump(config))
        code, said = call(capfd, "fit", "--config", str(path), f"--runs={tmp_path / kind}", *FLAGS)
        assert code == 0, said
        [run] = (tmp_path / kind).glob("*/version_0")
        adapters[kind] = load_file(run / "adapter/adapter_model.safetensors")
        lines = [json.loads(line) for line in (run / "captions.jsonl").read_text().splitlines()]
        captions[kind] = [(line["step"], line["caption"], line["reward"]) for line in lines]
    assert captions["jsonl"]
    assert captions["jsonl"] == captions["csv"] == captions["parquet"]
    for name, tensor in adapters["jsonl"].items():
        assert tensor.equal(adapters["csv"][name]), name
        assert tensor.equal(adapters["parquet"][name]), name
