"""Bytes of tensors alive, operation by operation, on any device: what a GPU's allocator would count."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """While active, ``peak`` follows the bytes of all storages made inside and still alive.

    Args:
        known: tensors that were there before: a view of one of them is no new memory.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._known = [tensor.untyped_storage() for tensor in known]
        self._sizes = {id(storage): 0 for storage in self._known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self._live += storage.nbytes()
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._drop, id(storage))

    def _drop(self, identity: int) -> None:
        self._live -= self._sizes.pop(identity, 0)


def all_tensors(module: torch.nn.Module) -> list[Tensor]:
    """Parameters, buffers, and the scales of 4-bit parameters."""
    tensors = [*module.parameters(), *module.buffers()]
    for parameter in module.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    return tensors


def saved_bytes(module: torch.nn.Module, forward: Any) -> int:
    """Bytes that ``forward()`` keeps for its backward pass, each storage once, the module's own not counted."""
    own = {tensor.untyped_storage().data_ptr() for tensor in all_tensors(module)}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _result = forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
