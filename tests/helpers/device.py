"""Where the tests of policy, losses, training and rollout compute: ``pytest --device cuda``; the CPU by default."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_chosen = torch.device("cpu")


def choose(name: str) -> None:
    """Called once, by tests/conftest.py, before any test module is imported."""
    global _chosen
    if name not in ("cpu", "cuda"):
        raise ValueError(f"--device is {name!r}; expected cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no CUDA device here")
    _chosen = torch.device(name, 0) if name == "cuda" else torch.device(name)
    torch.backends.cudnn.allow_tf32 = False  # by default PyTorch rounds float32 convolutions to 10 bits there


def device() -> torch.device:
    """The device that the run was given."""
    return _chosen


def trainer_options() -> dict[str, Any]:
    """For a Lightning Trainer: one process on :func:`device`."""
    return {"accelerator": "gpu" if _chosen.type == "cuda" else "cpu", "devices": 1}


def there(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Copies of tensors that a test drew on the CPU, so that every device computes with the same numbers."""
    return tuple(tensor.to(_chosen) for tensor in tensors)
