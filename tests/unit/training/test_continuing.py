"""A run folder is taken back to its checkpoint: each step stands once, and nothing is lost."""

from __future__ import annotations

import csv
import json

import pytest

from racro_pl.training.checkpointing import resume_logs
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


@pytest.fixture
def told(monkeypatch):
    said = []
    monkeypatch.setattr(resume_logs, "rank_zero_info", said.append)
    return said


def damaged(tmp_path, damage):
    """The table of three steps, damaged, taken back to the checkpoint of step 3, and continued by a fourth."""
    first = ContinuedCSVLogger(tmp_path, "run", "version_0", flush_logs_every_n_steps=1)
    for axis in range(3):
        first.log_metrics({"reward": axis / 10, "seconds": 12.25}, axis)
    table = tmp_path / "run/version_0/metrics.csv"
    table.write_bytes(damage(table.read_bytes()))
    second = ContinuedCSVLogger(tmp_path, "run", "version_0", flush_logs_every_n_steps=1)
    second.save()  # as Lightning does before the run's first callback
    rewind(table.parent, 3)
    rewind(table.parent, 3)  # twice is as good as once
    second.log_metrics({"reward": 0.9, "seconds": 1.5, "new": 1.0}, 3)
    return [(row["step"], row["reward"], row["seconds"]) for row in rows(table)]


FIRST, SECOND = ("0", "0.0", "12.25"), ("1", "0.1", "12.25")
LAST = ("3", "0.9", "1.5")


@pytest.mark.parametrize("bytes_cut", [1, 3, 8])
def test_a_last_row_that_was_cut_off_is_set_aside_though_no_row_is_after_the_checkpoint(tmp_path, told, bytes_cut):
    assert damaged(tmp_path, lambda table: table[:-bytes_cut]) == [FIRST, SECOND, LAST]
    assert told == [
        "resume: metrics.csv: cut or damaged rows (1) moved to metrics.broken.csv; their steps may have no row now"
    ]
    whole = b"0.2,12.25,2\r\n"
    kept = (tmp_path / "run/version_0/metrics.broken.csv").read_bytes()
    assert kept == whole[:-bytes_cut].rstrip() + b"\n"


def test_a_row_glued_to_a_cut_one_is_set_aside(tmp_path, told):
    """As an earlier version of the program left it."""
    assert damaged(tmp_path, lambda table: table[:-3] + b"0.5,7.0,3\r\n") == [FIRST, SECOND, LAST]
    assert len(told) == 1


@pytest.mark.parametrize("damage", [
    lambda table: table[table.index(b"\n") + 1 :],
    lambda table: b"\0" * 20 + table[20:],
    lambda table: b"\xff" * 200_000,
    lambda table: table[:10],
    lambda table: b"",
])  # fmt: skip
def test_a_table_without_its_header_is_kept_and_a_new_one_begins(tmp_path, told, damage):
    assert damaged(tmp_path, damage) == [LAST]
    assert len(told) == 1
    assert "no whole header; its lines" in told[0]
    seen = []
    damaged(tmp_path / "again", lambda table: seen.append(damage(table)) or seen[0])
    kept = (tmp_path / "run/version_0/metrics.broken.csv").read_bytes()
    assert kept.splitlines() == seen[0].splitlines()


def test_a_whole_table_is_left_as_it_is(tmp_path, told):
    assert damaged(tmp_path, lambda table: table) == [FIRST, SECOND, ("2", "0.2", "12.25"), LAST]
    assert told == []
    assert not (tmp_path / "run/version_0/metrics.broken.csv").exists()
