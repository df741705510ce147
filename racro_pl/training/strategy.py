"""FSDP2 under Lightning: a strategy, and checkpoints that are the same file however many devices wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy, StrategyRegistry
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.policy.prompts import PromptEncoder


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's ``ModelParallelStrategy`` with the weights spread over all processes of all nodes.

    Select it as ``trainer.strategy: fsdp2``. Checkpoints are the files that other strategies write, with whole
    tensors, and load under any number of devices: rank 0 puts them together in its main memory.
    """

    lightning_restore_optimizer = True

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return gather(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return gather(ParallelStrategy.optimizer_state(self, optimizer))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        weights = {
            name: _share(tensor, own[name]) if name in own else tensor
            for name, tensor in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = []
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments = {
                index: {name: _share(value, parameters[index]) for name, value in entry.items()}
                for index, entry in saved["state"].items()
            }
            states.append(saved | {"state": moments})
        ParallelStrategy.load_optimizer_state_dict(self, {"optimizer_states": states})


StrategyRegistry.register("fsdp2", ShardedStrategy, description="weights spread over all processes (FSDP2)")


def load_sharded(
    settings: PolicySettings, strategy: ShardedStrategy, encoder: PromptEncoder, look: Callable[[Captioner], None]
) -> Captioner:
    """Build the policy with its weights spread over all ranks; ``look`` is called with it while it is still whole.

    The processes of a node load one after the other: its main memory has to hold one whole policy, not one for
    every device, and a device never more than a layer beside its share.
    """
    # Master weights stay in the stored dtype; under mixed precision they are gathered and used in bf16.
    mixed = strategy.precision_plugin.precision == "bf16-mixed"
    captioner = None
    for turn in range(strategy.num_processes):
        if turn == strategy.local_rank:
            captioner = load_captioner(settings, torch.device("cpu"), encoder)
            look(captioner)
            captioner.shard(
                strategy.root_device, strategy.device_mesh["data_parallel"], torch.bfloat16 if mixed else None
            )
        strategy.barrier()
    assert captioner is not None
    return captioner


def gather(state: Any) -> Any:
    """The same mapping with whole tensors in main memory on rank 0, and without the sharded ones elsewhere.

    To be called by all ranks. Returns a state that is not sharded as it is.
    """
    return tree_map_only(DTensor, _whole, state)


def _whole(tensor: DTensor) -> Tensor | None:
    whole = tensor.full_tensor()
    return whole.detach().cpu() if dist.get_rank() == 0 else None


def _share(value: Any, like: Tensor) -> Any:
    """This rank's part of a whole tensor that belongs to a sharded one; anything else as it is."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # Every rank has read the same file: nothing needs to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
