"""The soak test's short form: it runs, and nothing grows. ``scripts/soak.py`` alone is the long one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.environment import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_thirty_steps_against_a_server_that_fails_at_random():
    command = [sys.executable, "scripts/soak.py", "--steps", "30", "--every", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("flat")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("captions: "))
    counts = ast.literal_eval(line.removeprefix("captions: ").split(";")[0])
    assert sum(counts.values()) == 30 * 8
    assert counts.pop("scored") > 120
    assert counts, "no fault came through to a caption: nothing was tried"
