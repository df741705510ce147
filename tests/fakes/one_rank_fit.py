"""Two steps under a strategy with one process: its own process group, so in a process of its own.

    python -m tests.fakes.one_rank_fit MODEL_FOLDER OUT_FOLDER STRATEGY DEVICE

Leaves ``STRATEGY.pt``: the weights, and the backend of the process group (None without one).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from racro_pl.training.strategy import gather
from tests.helpers import device
from tests.unit.training.conftest import fit, make_module


def main(model: str, out: str, strategy: str, where: str) -> None:
    device.choose(where)
    policy: dict[str, Any] = {"lora": None} if strategy.endswith("fsdp2") else {}
    module = make_module(Path(model), policy=policy, learning_rate=1e-3)
    fit(
        module,
        Path(out),
        steps=2,
        use_distributed_sampler=False,
        strategy="auto" if strategy.startswith("alone") else strategy,
    )
    weights = {name: tensor.detach().cpu() for name, tensor in gather(module.state_dict()).items()}
    backend = dist.get_backend() if dist.is_initialized() else None
    torch.save({"weights": weights, "backend": backend}, Path(out) / f"{strategy}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
