"""A run folder is taken back to its checkpoint: each step stands once, and nothing is lost."""

from __future__ import annotations

import csv
import json

import pytest

from racro_pl.training.checkpointing.resume_logs import ContinuedCSVLogger, rewind


def lines(*steps):
    return "".join(json.dumps({"step": step, "caption": f"ö {step}"}) + "\n" for step in steps)


def rows(path):
    return list(csv.DictReader(path.open()))


def test_lines_after_the_checkpoint_are_set_aside(tmp_path):
    (tmp_path / "captions-rank1.jsonl").write_text(lines(4, 5, 5, 6, 7))
    (tmp_path / "notes.jsonl").write_text('{"of": "another kind"}\n')
    rewind(tmp_path, 5)
    rewind(tmp_path, 5)  # twice is as good as once
    assert (tmp_path / "captions-rank1.jsonl").read_text() == lines(4, 5, 5)
    assert (tmp_path / "captions-rank1.replaced.jsonl").read_text() == lines(6, 7)
    assert (tmp_path / "notes.jsonl").read_text() == '{"of": "another kind"}\n'
    (tmp_path / "captions-rank1.jsonl").write_text(lines(4, 5, 6))
    rewind(tmp_path, 4)
    assert (tmp_path / "captions-rank1.replaced.jsonl").read_text() == lines(6, 7) + lines(5, 6)


@pytest.mark.parametrize("cut", ['{"ste', '{"step": 5, "caption": "hal', lines(5)[:-1]])
def test_a_line_that_was_cut_off_goes_too(tmp_path, cut):
    (tmp_path / "captions.jsonl").write_text(lines(4) + cut)
    rewind(tmp_path, 5)
    assert (tmp_path / "captions.jsonl").read_text() == lines(4)


def test_metrics_go_on_under_one_header(tmp_path):
    first = ContinuedCSVLogger(tmp_path, "run", "version_0", flush_logs_every_n_steps=1)
    for axis in range(4):
        first.log_metrics({"reward": axis / 10}, axis)
    first.log_metrics({"val": 0.5}, 1)
    folder = tmp_path / "run/version_0"
    with (folder / "metrics.csv").open("a") as file:
        file.write("0.5,")  # killed while it wrote
    rewind(folder, 2)
    second = ContinuedCSVLogger(tmp_path, "run", "version_0", flush_logs_every_n_steps=1)
    second.log_metrics({"reward": 0.9, "new": 1.0}, 2)
    found = rows(folder / "metrics.csv")
    assert [(row["step"], row["reward"], row["val"], row["new"]) for row in found] == [
        ("0", "0.0", "", ""), ("1", "0.1", "", ""), ("1", "", "0.5", ""), ("2", "0.9", "", "1.0"),
    ]  # fmt: skip
    assert [(row["step"], row["reward"]) for row in rows(folder / "metrics.replaced.csv")] == [
        ("2", "0.2"),
        ("3", "0.3"),
    ]
