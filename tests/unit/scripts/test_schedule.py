"""One queue for all experiments: what begins first, what a failure keeps back, and that nothing outlives the queue."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from experiment_parts.schedule import Slot, Task, by_urgency, carry_out, plan

SCRIPTS = Path(__file__).parents[3] / "scripts"


def task(name: str, seconds: float, *after: str) -> Task:
    return Task(name, (f"module_{name}",), seconds, frozenset(after))


# a waits for nothing, b and c for a, d for c: chains of 1 + 2 + 5, 3, 2 + 5, and 5 seconds.
DIAMOND = [task("b", 3, "a"), task("d", 5, "c"), task("a", 1), task("c", 2, "a"), task("e", 4)]


def test_tasks_are_sorted_by_the_longest_chain_that_they_begin():
    assert [it.name for it in by_urgency(DIAMOND)] == ["a", "c", "d", "e", "b"]


def test_a_task_that_can_never_begin_is_refused():
    with pytest.raises(ValueError, match=r"x waits for \['y'\]"):
        by_urgency([task("x", 1, "y")])
    with pytest.raises(ValueError, match=r"wait for one another: \['x', 'y'\]"):
        by_urgency([task("x", 1, "y"), task("y", 1, "x")])


def test_the_plan_keeps_both_workers_busy():
    # At 1 c takes the place of a, at 3 d that of c, at 4 b that of e.
    assert plan(DIAMOND, 2) == [
        Slot("a", 0, 1), Slot("e", 0, 4), Slot("c", 1, 3), Slot("d", 3, 8), Slot("b", 4, 7),
    ]  # fmt: skip
    assert plan(DIAMOND, 1)[-1].end == sum(it.seconds for it in DIAMOND)


class Ended:
    """A process that has ended."""

    pid = None

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode
        self.sentinel, writer = os.pipe()
        os.close(writer)  # a read end without a writer is ready to be read

    def join(self) -> None:
        os.close(self.sentinel)


def test_a_failure_keeps_back_only_what_waits_for_it():
    begun, told = [], {}

    def start(it: Task) -> Ended:
        begun.append(it.name)
        return Ended(3 if it.name == "c" else 0)

    tasks = [*DIAMOND, task("f", 1, "d"), task("g", 1, "b", "e")]
    failed = carry_out(tasks, 2, start, told.__setitem__)  # type: ignore[arg-type]
    assert failed == {
        "c": "ended with status 3", "d": "not begun: c failed", "f": "not begun: d failed",
    }  # fmt: skip
    assert sorted(begun) == ["a", "b", "c", "e", "g"]
    assert told.keys() == {it.name for it in tasks}


def test_no_more_run_at_a_time_than_there_are_workers():
    running, most = set(), []

    class Counted(Ended):
        def __init__(self, name: str) -> None:
            super().__init__(0)
            self.name = name
            running.add(name)
            most.append(len(running))

        def join(self) -> None:
            super().join()
            running.remove(self.name)

    carry_out([task(str(n), 1) for n in range(7)], 3, lambda it: Counted(it.name), lambda *_: None)  # type: ignore[arg-type]
    assert max(most) == 3


QUEUE = """
import json, os, signal, sys
from functools import partial
from pathlib import Path
from experiment_parts.schedule import Task, carry_out, end_with_tasks, forked
out = Path(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background commands begin with it ignored
end_with_tasks()
tasks = [Task(name, (name, "words"), 1) for name in sys.argv[2:]]
print(json.dumps(carry_out(tasks, 2, partial(forked, root=out, out=out), print)))
"""
TOLD = "import os, sys\ndef main(): print(sys.argv, os.getcwd(), flush=True)\n"
FAILS = "def main(): raise ValueError('no such thing')\n"
REFUSES = "def main(): return 7\n"
LASTING = """
import os, subprocess, sys
def main():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    os.write({fd}, b"x")
    child.wait()
"""


def queue(tmp_path, modules, **options):
    for name, text in modules.items():
        file = tmp_path / f"{name}.py"
        if name.startswith("package"):
            file = tmp_path / name / "__main__.py"
            file.parent.mkdir()
            file.with_name("__init__.py").touch()
        file.write_text(text)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(tmp_path)])}
    command = [sys.executable, "-c", QUEUE, str(tmp_path), *modules]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, **options)


def test_a_fork_runs_a_module_and_leaves_its_words_and_its_cost(tmp_path):
    process = queue(tmp_path, {"told": TOLD, "fails": FAILS, "refuses": REFUSES, "package": TOLD})
    said, _ = process.communicate(timeout=120)
    assert json.loads(said.splitlines()[-1]) == {"fails": "ended with status 1", "refuses": "ended with status 7"}
    assert (tmp_path / "told.log").read_text() == f"['told', 'words'] {tmp_path}\n"
    assert (tmp_path / "package.log").read_text() == f"['package', 'words'] {tmp_path}\n"
    assert "ValueError: no such thing" in (tmp_path / "fails.log").read_text()
    cost = json.loads((tmp_path / "told.cost.json").read_text())
    assert cost.keys() == {"seconds", "cpu_seconds"}
    assert not (tmp_path / "fails.cost.json").exists()
    assert not (tmp_path / "refuses.cost.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_queue(tmp_path, number):
    """All processes hold the write end of a pipe: it ends when the last of them does."""
    reader, writer = os.pipe()
    modules = {name: LASTING.format(fd=writer) for name in ("one", "other", "waiting")}
    process = queue(tmp_path, modules, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    alarm = threading.Timer(120, process.kill)
    try:
        assert [os.read(reader, 1) for _ in range(2)] == [b"x", b"x"]  # both tasks run, with a process of their own
        process.send_signal(number)
        process.communicate(timeout=120)
        assert process.returncode != 0
        assert select.select([reader], [], [], 120)[0]
        assert os.read(reader, 1) == b""
    finally:
        alarm.cancel()
        process.kill()
        os.close(reader)
