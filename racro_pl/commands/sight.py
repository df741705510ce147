"""The part of ``racro-pl doctor`` that loads a captioner: its weights are whole, it sees, and it packs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from racro_pl.images import ImageError

if TYPE_CHECKING:
    import torch

    from racro_pl.policy.captioner import Captioner
    from racro_pl.policy.config import PolicySettings

PICTURES = ((256, 256), (1024, 768), (2048, 1024))
"""Sizes (width, height) whose image tokens are told."""


def sight(policy: PolicySettings) -> str:
    """Load the captioner and see that it sees."""
    import torch

    from racro_pl.policy.loading import load_for_inference, weight_bytes
    from racro_pl.policy.memory.ledger import GIB, on_meta
    from racro_pl.policy.packing_probe import drawn_prompts
    from racro_pl.policy.sight import check_sight
    from racro_pl.policy.structure import linear_names
    from racro_pl.pretrained.weights import load_config

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    needed, free = weight_bytes(policy), _free_bytes(device)
    if free is not None and needed > free:
        return (
            f"whether it sees was not tried: {needed / GIB:.1f} GiB of weights, {free / GIB:.1f} GiB of memory free "
            "here; `fit` tries it"
        )
    captioner = load_for_inference(policy, device)
    packing = _packing(captioner)  # first: it chooses the path that has to see
    difference = check_sight(captioner, drawn_prompts(captioner)[0])
    # Of the bare model: an adapter puts linear layers of its own around these.
    layers = len(linear_names(on_meta(load_config(policy.path, f"policy.path {policy.path!r}"))))
    tokens = ", ".join(_image_tokens(captioner, size) for size in PICTURES)
    seen = f"it sees (other pixels change log-probs by up to {difference:.2g} nats a token)"
    return f"{seen}; {packing}; {layers} layers to adapt; image tokens: {tokens}"


def _packing(captioner: Captioner) -> str:
    from racro_pl.policy.packing_probe import check_plain, probe_packing

    family, reason = captioner.family.model_type, captioner.plain_because
    if reason is None:
        packing = probe_packing(captioner)
        if packing.fault is None:
            return f"family {family}, shared prefix {packing.difference:.1g} nats from the plain forward"
        reason = packing.fault
        captioner.use_plain_path(reason)
    check_plain(captioner)
    return f"family {family}, on the plain path: {reason}"


def _image_tokens(captioner: Captioner, size: tuple[int, int]) -> str:
    try:
        count = str(captioner.encoder.image_tokens(*size))
    except ImageError:
        count = "refused"
    return f"{count} ({size[0]}x{size[1]})"


def _free_bytes(device: torch.device) -> int | None:
    """Memory that a model can still take; None where this cannot be told."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
