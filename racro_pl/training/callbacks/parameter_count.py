"""How much of the policy is trained, in one line. Lightning's table shows one row, and FLOPs that it does not count."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn


class ParameterCount(Callback):
    """Says at the start of ``fit`` how many parameters of the policy are trained."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One line."""
        rank_zero_info(parameter_line(pl_module))


def parameter_line(model: nn.Module) -> str:
    """Trained and all parameters, those of 4-bit weights one by one, though several share a byte."""
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        sizes[parameter.requires_grad] += parameter.numel() if state is None else state.shape.numel()
    return f"policy: {sizes[True]:,} of {sum(sizes.values()):,} parameters are trained"
