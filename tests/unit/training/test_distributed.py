"""How a rank leaves the process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from tests.fakes.vllm import wait_until_gone

CASES = [
    ("nccl", "interrupted", 100.0, False),  # failed alone
    ("nccl", "interrupted", 0.0, False),  # failed as all did
    ("nccl", "interrupted", 2.0, True),  # asked to stop, as all were: the others still have something to do
    ("nccl", "finished", 2.0, False),  # so they have
    ("gloo", "interrupted", 2.0, False),  # closes its connections, which the others notice
]
"""Backend, how the run ended, seconds until all ranks have left, whether they agreed to."""
# Each case in a process that ends as programs do, forked from one that has imported everything. The others of a group
# of NCCL are played: leaving takes as long as it is told to.
RANKS = """
import json, os, subprocess, sys, time
from types import SimpleNamespace
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerState, TrainerStatus
from racro_pl.training import distributed

def end(backend, status, seconds, together):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    distributed.LEAVING_S = 0.5
    dist.get_backend = lambda: backend
    dist.destroy_process_group = lambda: (time.sleep(seconds), print("left", flush=True))
    child = subprocess.Popen(["sleep", "100"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=[child]))
    distributed.disconnect_at_exit(SimpleNamespace(state=TrainerState(status=TrainerStatus(status)), strategy=strategy))
    if together:
        distributed.leave_together()
    print(child.pid, flush=True)
    sys.exit(3)

ends = []
for case in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if (process := os.fork()) == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.closerange(3, 50)
        end(*case)
    os.close(writing)
    said = open(reading).read()
    ends.append((os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said))
print(json.dumps(ends))
"""


def test_a_rank_that_failed_alone_ends_with_those_that_it_launched():
    command = [sys.executable, "-c", RANKS, json.dumps(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert [code for code, _ in ends] == [1, 3, 3, 3, 3], ends
    launched = [int(said.split()[0]) for _, said in ends]
    for process in launched[1:]:
        os.kill(process, signal.SIGKILL)  # these were let live
    wait_until_gone(launched)
    assert ["ends alone" in said for _, said in ends] == [True, False, False, False, False]
    assert ["left" in said.split() for _, said in ends] == [False, True, True, True, True]
