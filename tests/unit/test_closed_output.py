"""Commands whose output nobody reads any more, as after ``| head``."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from racro_pl import cli


def ended(*words: str, unbuffered: bool = False) -> tuple[int, str]:
    """Status and errors of a command whose output goes into a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    command = [sys.executable, "-m", "racro_pl", *words]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("words", [["init"], ["--help"], ["data", "list"]])
def test_a_command_whose_output_is_not_read_ends_without_a_word(words, unbuffered):
    assert ended(*words, unbuffered=unbuffered) == (1, "")


def test_more_than_a_buffer_of_output_and_a_parser_s_help():
    assert ended("schema", "test") == (1, "")
    assert ended("init", "--help") == (1, "")


def test_another_broken_pipe_is_a_bug_and_keeps_its_traceback(monkeypatch):
    def fail(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=fail))
    with pytest.raises(BrokenPipeError):
        cli.run(["data", "list"])


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_that_was_started_without_its_streams_works(tmp_path, closed):
    """A file that it writes gets none of their numbers: whatever prints would print into it."""
    program = "import sys; from racro_pl.cli import run; code = run(['init', 'quickstart'])"
    program += "; lowest = open('lowest', 'w').fileno(); sys.exit(code if lowest > 2 else lowest + 10)"
    command = f'"{sys.executable}" -c "{program}" {closed}'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "quickstart.yaml").is_file()
