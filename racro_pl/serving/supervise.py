"""Runs a command and ends it, with everything that it started, when the process that asked for it is gone.

    python -I supervise.py PARENT_PID GRACE_S COMMAND [ARGUMENT ...]

A server that starts workers of its own outlives its parent easily: a killed trainer runs no clean-up code, and a
signal to the server alone leaves the workers running, with their memory. So the server is a child of this small
process, which notices three things: the parent has gone, it is itself asked to end (SIGTERM, SIGINT, SIGHUP), or the
command has ended. In each case it sends SIGTERM to the command's process group, SIGKILL after ``GRACE_S`` seconds, and
exits only when no descendant is left. Its first line on standard output is the command's process id; its exit status
is the command's (128 + n when signal n ended it).

Standard library only, and run by its path: it must work before, and without, anything else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_S = 0.2
PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    parent_pid, grace_s, command = int(argv[0]), float(argv[1]), argv[2:]
    asked_to_end = False

    def end(signum: int, frame: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, end)
    become_subreaper()
    try:
        # The command's output goes where this process's errors go: standard output carries the process id alone.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, start_new_session=True
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    print(child.pid, flush=True)
    # The parent's id changes the moment the parent is gone, however it went. (PR_SET_PDEATHSIG would fire when the
    # *thread* that started us ends, and a pipe stays open in processes that the parent has forked.)
    while child.poll() is None and not asked_to_end and os.getppid() == parent_pid:
        time.sleep(POLL_S)
    end_group(child, grace_s)
    end_descendants()
    code = child.returncode
    return code if code >= 0 else 128 - code


def become_subreaper() -> None:
    """Makes orphaned descendants children of this process, so that it can find, end and reap all of them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_group(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ends the command's process group: SIGTERM, and SIGKILL when the command is still there after ``grace_s``."""
    signal_group(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace_s)
    signal_group(child.pid, signal.SIGKILL)
    child.wait()


def signal_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


def end_descendants() -> None:
    """Ends what is left, outside the process group too: each death makes the next generation children of ours."""
    while True:
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            return


def children() -> list[int]:
    """Process ids of this process's children; empty where the kernel does not list them."""
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in listing.read_text().split()] if listing.exists() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
