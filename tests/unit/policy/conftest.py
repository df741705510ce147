"""Small models of both families, and questions with images of different sizes and counts."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.types import ImageRef, Question
from tests.fakes.models import save_small_model
from tests.helpers.device import device

FAMILIES = ("qwen2_5_vl", "qwen3_vl")


def picture(width: int, height: int, seed: int) -> ImageRef:
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise.numpy()).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


def question(name: str, text: str, *images: ImageRef) -> Question:
    return Question(id=name, images=images, text=text, answer="red", answer_type="text")


QUESTIONS = [
    question("wide", "what is the color of circle ?", picture(120, 60, 1)),
    question("two", "<image> what changed between this and <image> ?", picture(64, 64, 2), picture(60, 120, 3)),
    question("none", "no image at all"),
    question("tall", "a much longer question, so that the padding on the left differs a lot", picture(56, 170, 4)),
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_small_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def build(folder: Path, where: torch.device | None = None, **changes: object) -> Captioner:
    """A captioner whose adapter does something, on the run's device or ``where``."""
    settings = {
        "dtype": "float32",
        "min_pixels": 56 * 56,
        "max_pixels": 128 * 128,
        "lora": LoraSettings(rank=4, alpha=8),
    }
    torch.manual_seed(0)
    captioner = load_captioner(PolicySettings(path=str(folder), **(settings | changes)), where or device())
    with torch.no_grad():  # a fresh adapter changes nothing; a trained one must be seen to do something
        for name, parameter in captioner.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    return captioner
