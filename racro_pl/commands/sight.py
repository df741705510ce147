"""The part of ``racro-pl doctor`` that loads a captioner: its weights are whole, and it sees."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from racro_pl.types import ImageRef, Question

if TYPE_CHECKING:
    import torch

    from racro_pl.policy.config import PolicySettings


def sight(policy: PolicySettings) -> str:
    """Load the captioner and see that it sees.

    Args:
        policy: its weights.
    """
    import torch

    from racro_pl.policy.loading import load_for_inference, weight_bytes
    from racro_pl.policy.sight import check_sight

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    needed, free = weight_bytes(policy), _free_bytes(device)
    if free is not None and needed > free:
        gib = 2**30
        return (
            f"whether it sees was not tried: {needed / gib:.1f} GiB of weights, {free / gib:.1f} GiB of memory free "
            "here; `fit` tries it"
        )
    captioner = load_for_inference(policy, device)
    difference = check_sight(captioner, captioner.encode(_drawn_question()))
    return f"it sees (other pixels change log-probs by up to {difference:.2g} nats a token)"


def _drawn_question() -> Question:
    image = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(image).ellipse((20, 20, 90, 90), fill="red")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Question("doctor", (ImageRef(data=buffer.getvalue()),), "what is the color of circle ?", "red", "text")


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
