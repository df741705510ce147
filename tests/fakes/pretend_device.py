"""A CUDA device where there is none: tensors that say they are on ``cuda:0``, and hold their numbers on the CPU.

Inside :class:`PretendDevice` an operation that mixes devices raises, as CUDA's would; what is computed is computed by
the CPU, so values are real and every branch on a value is taken as it would be. Counted is what makes the host wait for
the device: reading a number, a list, a copy to the CPU, a result whose size depends on values.

Two fused attentions of CUDA, which a CPU does not have, are computed score by score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from racro_pl.policy.partial_attention import attend_explicitly

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)
WAITING = {
    aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default, aten.nonzero.default,
    aten.masked_select.default, aten.bincount.default, aten._unique2.default, aten.unique_dim.default,
    aten.unique_consecutive.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
"""Operations whose result the host reads, or whose size it has to know."""
INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}  # fmt: skip
"""CUDA takes their indices from the CPU too; a mask among them is counted through first."""
EFFICIENT = aten._scaled_dot_product_efficient_attention.default


class OnDevice(torch.Tensor):
    """A tensor that claims :data:`DEVICE`. Below Python it is on ``meta``: formulas of autograd ask for zeros there."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device="meta",
        )  # fmt: skip
        made.held = held
        return made

    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held!r})"

    def tolist(self) -> Any:
        COUNTS["tolist"] += 1
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a CUDA tensor to numpy: copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


COUNTS: Counter[str] = Counter()
"""What the host waited for, since :meth:`PretendDevice.waits` last began."""


class PretendDevice(TorchDispatchMode):
    """While active there is a device that is not there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    @contextmanager
    def waits(self) -> Iterator[Counter[str]]:
        """Count inside how often the host waits for the device, by operation."""
        COUNTS.clear()
        yield COUNTS


def move(module: torch.nn.Module) -> None:
    """All parameters and buffers to the device; only what is trained still asks for gradients."""
    moved: dict[int, torch.nn.Parameter] = {}  # tied weights stay tied
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                fresh = moved.get(id(parameter))
                if fresh is None:
                    fresh = torch.nn.Parameter(OnDevice(parameter.detach()), parameter.requires_grad)
                    moved[id(parameter)] = fresh
                part._parameters[name] = fresh
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation on the numbers that are held; its result is on the device where an operand is, or where asked."""
    if func is aten._fused_sdp_choice.default:
        return 0  # the explicit one, made of operations that come by here
    operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in operands if isinstance(x, OnDevice)]
    asked = kwargs.get("device")
    copies = func in (aten._to_copy.default, aten.copy_.default)
    if there and not copies:
        _refuse_mixed(func, args, operands)
        _count(func, args)
    on_device = bool(there) if asked is None else torch.device(asked).type in (DEVICE.type, "meta")
    if copies and there and (not on_device or (func is aten.copy_.default and not isinstance(args[0], OnDevice))):
        COUNTS["to cpu"] += 1
    own_args, own_kwargs = tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
    if asked is not None:
        own_kwargs["device"] = torch.device("cpu")
        own_kwargs.pop("pin_memory", None)
    out = _efficient(*own_args, **own_kwargs) if func is EFFICIENT else func(*own_args, **own_kwargs)
    if func._schema.is_mutable and func._schema.returns:  # in place: the operand itself, not what it holds
        for given, held in zip(args, own_args, strict=True):
            if out is held:
                return given
    if not on_device:
        return out
    return tree_map_only(Tensor, lambda x: x if isinstance(x, OnDevice) else OnDevice(x), out)


def _refuse_mixed(func: Any, args: Any, operands: list[Tensor]) -> None:
    strangers = [tuple(x.shape) for x in operands if not isinstance(x, OnDevice) and x.dim()]
    if func in INDEXING:
        values = args[2] if len(args) > 2 and isinstance(args[2], Tensor) else args[0]
        if isinstance(args[0], OnDevice) and (isinstance(values, OnDevice) or not values.dim()):
            return
    if strangers:
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} was given CPU tensors {strangers}")


def _count(func: Any, args: Any) -> None:
    masks = func in INDEXING and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    if masks or func in WAITING:
        COUNTS[str(func)] += 1


def _efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, with_lse: bool, *_: Any, scale: float, **__: Any
) -> tuple[Tensor, ...]:
    assert with_lse
    out, lse = attend_explicitly(q, k, v, scale, bias)
    padded = -(-q.shape[2] // 32) * 32
    return out, torch.nn.functional.pad(lse[..., 0], (0, padded - q.shape[2])), lse.new_zeros(()), lse.new_zeros(())


@contextmanager
def pretend_device(patch: Callable[[Any, str, Any], None]) -> Iterator[PretendDevice]:
    """A device for the time of a test.

    Args:
        patch: ``monkeypatch.setattr``.
    """
    patch(torch.cuda, "_lazy_init", lambda: None)  # torch.zeros(..., device="cuda") would look for a driver
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...): made on the CPU, then copied
    try:
        with PretendDevice() as mode:
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
