import json

import pytest

from racro_pl.evaluation.store import Store, cut_torn_line, read_records
from racro_pl.types import RacroError


def record(number, text="t"):
    return {"id": str(number), "task": "caption", "text": text}


def open_store(folder, rank=0):
    return Store(folder, "captions", ("id", "task"), rank)


def test_a_second_store_finds_what_the_first_wrote(tmp_path):
    first = open_store(tmp_path)
    for number in range(3):
        first.append(record(number, 'ä\u2028\ud800 "x"\n'))  # line separators and broken surrogates stay one line
    first.close()
    second = open_store(tmp_path)
    assert len(second) == 3
    assert ("1", "caption") in second
    assert second.get(("1", "caption"))["text"] == 'ä\u2028\ud800 "x"\n'
    assert second.get(("9", "caption")) is None


def test_records_are_readable_at_once_without_close(tmp_path):
    writer = open_store(tmp_path)
    writer.append(record(1))
    assert [found["id"] for found in read_records(writer.path)] == ["1"]


@pytest.mark.parametrize("torn", [b'{"id": "2", "ta', b'{"id": "2", "task": "caption", "text": "t"}', b"x" * 10_000])
def test_a_line_cut_off_by_a_crash_is_dropped_and_written_again(tmp_path, torn):
    store = open_store(tmp_path)
    store.append(record(1))
    store.close()
    with store.path.open("ab") as file:
        file.write(torn)
    again = open_store(tmp_path)
    assert len(again) == 1
    assert len(list(read_records(store.path))) == store.path.read_bytes().count(b"\n") == 1
    assert store.path.read_bytes().endswith(b"\n")  # also where nothing follows
    again.append(record(2, "whole"))
    again.close()
    assert [json.loads(line)["text"] for line in store.path.read_bytes().splitlines()] == ["t", "whole"]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_bytes(b'{"id"')
    cut_torn_line(path)
    assert path.read_bytes() == b""


def test_every_rank_reads_all_and_appends_to_its_own_file(tmp_path):
    zero, two = open_store(tmp_path), open_store(tmp_path, rank=2)
    zero.append(record(0))
    two.append(record(2))
    zero.close()
    two.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions-rank2.jsonl", "captions.jsonl"]
    assert len(open_store(tmp_path, rank=1)) == 2


def test_one_key_twice_is_a_bug_of_the_caller(tmp_path):
    store = open_store(tmp_path)
    store.append(record(1))
    with pytest.raises(ValueError, match="already"):
        store.append(record(1))


@pytest.mark.parametrize(
    ("line", "words"), [("not json", "1 is not JSON"), ("[1]", "not a JSON object"), ('{"id": "1"}', "without 'task'")]
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, line, words):
    (tmp_path / "captions.jsonl").write_text(line + "\n")
    with pytest.raises(RacroError, match=words):
        open_store(tmp_path)
