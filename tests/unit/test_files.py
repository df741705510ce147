"""Files are whole or not there, and have the modes that docs/files.md states."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from racro_pl.files import append_private, follow_umask, place_error, write_atomically


@pytest.fixture(params=[0o022, 0o027], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_holds_data_is_its_owners_and_the_rest_follows_the_umask(tmp_path, umask):
    write_atomically(tmp_path / "shared", "text")
    write_atomically(tmp_path / "own", b"bytes", owner_only=True)
    append_private(tmp_path / "new" / "rows.jsonl", ["a", "b"])
    assert mode(tmp_path / "shared") == 0o666 & ~umask
    assert mode(tmp_path / "own") == mode(tmp_path / "new/rows.jsonl") == 0o600
    assert (tmp_path / "new/rows.jsonl").read_text() == "a\nb\n"


def test_weights_that_safetensors_writes_follow_the_umask_too(tmp_path, umask):
    (tmp_path / "deep").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "deep/model.safetensors")
    follow_umask(tmp_path)
    assert mode(tmp_path / "deep/model.safetensors") == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0")
    (tmp_path / ".results.json.0.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "old"


def test_several_may_write_one_file_at_once(tmp_path):
    path, texts = tmp_path / "note", {letter * 100_000 for letter in "abcd"}

    def write(text):
        for _ in range(50):
            write_atomically(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, texts))
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_character_does_not_end_a_run(tmp_path):
    append_private(tmp_path / "rows.jsonl", ["caption \ud83d"])
    write_atomically(tmp_path / "text", "caption \ud83d")
    assert (tmp_path / "rows.jsonl").read_text() == "caption ?\n"
    assert (tmp_path / "text").read_text() == "caption ?"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_place_that_cannot_be_used_is_one_line(number):
    error = place_error(OSError(number, os.strerror(number), "/somewhere/file"))
    assert str(error).startswith(f"cannot use /somewhere/file: {os.strerror(number)}; ")


def test_a_full_disk_is_a_sentence_with_and_without_the_file():
    full = os.strerror(errno.ENOSPC)
    named = place_error(OSError(errno.ENOSPC, full, "/somewhere/file"))
    assert str(named) == f"cannot write /somewhere/file: {full}; free some space"
    assert str(place_error(OSError(errno.ENOSPC, full))) == f"cannot write: {full}; free some space"


def test_other_errors_are_not_explained_away():
    assert place_error(OSError(errno.ENOENT, "No such file", "/somewhere")) is None
    assert place_error(OSError(errno.EACCES, "of a socket, without a file")) is None
    assert place_error(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
