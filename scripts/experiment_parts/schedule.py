"""Commands over a few worker processes: first those that the longest chain of other work waits for.

Critical-path list scheduling: whenever a worker is free, it takes, of the tasks whose prerequisites are finished, the
one with the most expected seconds to the end of the chain that it begins (en.wikipedia.org/wiki/List_scheduling).
Workers are forks of a process that has imported what the tasks import, which saves each task some seconds of a core.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """A Python command and what it waits for."""

    name: str
    """Of its log and its cost, too."""
    command: tuple[str, ...]
    """A module with a ``main()`` and its arguments, as after ``python -m``."""
    seconds: float
    """Expected, of one core."""
    after: frozenset[str] = frozenset()
    """Names of the tasks that have to be finished."""
    prepare: Callable[[], None] | None = None
    """Called before it begins."""


@dataclass(frozen=True)
class Slot:
    """When a task runs by the plan: seconds from the start."""

    name: str
    begin: float
    end: float


_ENDING = (signal.SIGTERM, signal.SIGHUP)
Start = Callable[[Task], BaseProcess]
"""Begins a task in a process of its own."""


def by_urgency(tasks: Sequence[Task]) -> list[Task]:
    """Tasks by the seconds of the longest chain from their start to the end of all that waits for them.

    Raises:
        ValueError: a task waits for one that is not among them, or for itself.
    """
    left = {task.name: task for task in tasks}
    for task in tasks:
        if not task.after <= set(left):
            raise ValueError(f"{task.name} waits for {sorted(task.after - set(left))}, which are no tasks here")
    chains = {task.name: task.seconds for task in tasks}
    while left:
        needed = {name for task in left.values() for name in task.after}
        last = [task for name, task in left.items() if name not in needed]
        if not last:
            raise ValueError(f"got tasks that wait for one another: {sorted(left)}")
        for task in last:
            del left[task.name]
            for name in task.after:
                chains[name] = max(chains[name], left[name].seconds + chains[task.name])
    return sorted(tasks, key=lambda task: -chains[task.name])


def plan(tasks: Sequence[Task], workers: int) -> list[Slot]:
    """What :func:`carry_out` would do if every task took the seconds that are expected of it."""
    waiting, slots, finished = by_urgency(tasks), [], set()
    running: list[Slot] = []
    now = 0.0
    while waiting or running:
        for task in [task for task in waiting if task.after <= finished][: workers - len(running)]:
            waiting.remove(task)
            running.append(Slot(task.name, now, now + task.seconds))
            slots.append(running[-1])
        now = min(slot.end for slot in running)
        finished |= {slot.name for slot in running if slot.end == now}
        running = [slot for slot in running if slot.end > now]
    return slots


def carry_out(tasks: Sequence[Task], workers: int, start: Start, tell: Callable[[str, str], None]) -> dict[str, str]:
    """Carry tasks out; one that fails keeps back only those that wait for it.

    Args:
        tasks: all of them.
        workers: how many run at a time.
        start: begins one.
        tell: gets a task's name and what became of it, when it ends.

    Returns:
        By name, for tasks that are not finished: what went wrong.

    Raises:
        KeyboardInterrupt: as anything that ends the wait, after all running tasks were killed.
    """
    waiting, finished, failed = by_urgency(tasks), set[str](), dict[str, str]()
    running: dict[int, tuple[Task, BaseProcess]] = {}
    try:
        while waiting or running:
            while task := next((task for task in waiting if task.after & set(failed)), None):
                waiting.remove(task)
                failed[task.name] = f"not begun: {', '.join(sorted(task.after & set(failed)))} failed"
                tell(task.name, failed[task.name])
            for task in [task for task in waiting if task.after <= finished][: workers - len(running)]:
                waiting.remove(task)
                process = start(task)
                running[process.sentinel] = (task, process)
            for ended in wait(list(running)) if running else []:  # without any it would wait for ever
                task, process = running.pop(ended)  # type: ignore[arg-type]
                process.join()
                if process.exitcode:
                    failed[task.name] = f"ended with status {process.exitcode}"
                else:
                    finished.add(task.name)
                tell(task.name, f"{failed.get(task.name, 'finished')}; {len(waiting) + len(running)} tasks left")
    finally:
        for _, process in running.values():
            kill(process)
    return failed


def end_with_tasks() -> None:
    """Make SIGTERM and SIGHUP (a batch system, a timeout, a closed terminal) end this process as Ctrl-C does."""
    for number in _ENDING:
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def forked(task: Task, root: Path, out: Path) -> BaseProcess:
    """Begin a task as a fork of this process, which may have no other threads; its words go to OUT/NAME.log.

    A finished task leaves its seconds in OUT/NAME.cost.json.

    Args:
        task: what to do.
        root: the folder to do it in.
        out: where log and cost go.
    """
    if task.prepare is not None:
        task.prepare()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(task.name, task.command, root, out))
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """End a process and those of its session; a run that is begun again starts from nothing, so it saves nothing."""
    assert process.pid is not None
    process.kill()
    with contextlib.suppress(ProcessLookupError):  # it has no session yet
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _work(name: str, command: Sequence[str], root: Path, out: Path) -> None:
    """In the fork: run the command as ``python -m`` would."""
    # A session of its own: a Ctrl-C in the terminal is for the parent, which ends its tasks.
    os.setsid()
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    begin, used = time.monotonic(), _cpu_seconds()
    with (out / f"{name}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(root)
    module, *arguments = command
    found = find_spec(module)
    if found is not None and found.submodule_search_locations is not None:
        module = f"{module}.__main__"
    sys.argv = [command[0], *arguments]
    code = importlib.import_module(module).main()
    if code:
        sys.exit(code)
    cost = {"seconds": round(time.monotonic() - begin, 1), "cpu_seconds": round(_cpu_seconds() - used, 1)}
    (out / f"{name}.cost.json").write_text(json.dumps(cost) + "\n")


def _cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
