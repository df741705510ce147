"""A small policy, a scripted reasoner and a list of questions under a real Trainer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch.utils.data import DataLoader

from racro_pl.data.datamodule import RacroDataModule
from racro_pl.data.readers.base import Reader, ReadResult, Split
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.reward.scorer import Scorer
from racro_pl.rollout import TransformersEngine
from racro_pl.training.checkpointing import resuming
from racro_pl.training.checkpointing.io import RacroCheckpointIO
from racro_pl.training.module import RacroModule
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import ImageRef, Question
from tests.fakes.models import save_small_model
from tests.fakes.reasoner_server import by_caption
from tests.fakes.reasoners import ScriptedReasoner
from tests.helpers.device import trainer_options


def questions(count: int) -> list[Question]:
    result = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (56 + 28 * (index % 3), 56), (40 * index % 256, 90, 200)).save(buffer, "PNG")
        text = f"what is the color of figure {'x' * (index % 4)} ?"
        image = ImageRef(data=buffer.getvalue())
        result.append(Question(str(index), (image,), text, "red", "text", category="ab"[index % 2]))
    return result


class ListData(LightningDataModule):
    """Questions from a list, in order, for every split."""

    seed = 1

    def __init__(self, items: list[Question], questions_per_step: int) -> None:
        super().__init__()
        self.questions = {"train": items, "validation": items, "test": items}
        self.questions_per_step = questions_per_step

    def train_dataloader(self) -> DataLoader:
        # With a generator of its own a loader draws nothing from the global stream that sampling continues.
        return DataLoader(
            self.questions["train"],
            self.questions_per_step,
            collate_fn=list,
            drop_last=True,
            generator=torch.Generator(),
        )  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.questions["validation"], 4, collate_fn=list)  # type: ignore[arg-type]

    test_dataloader = val_dataloader

    def categories(self, split: str) -> list[str]:
        return sorted({question.category for question in self.questions[split]})

    def audit_names(self) -> tuple[str, ...]:
        return ("words",)

    def audit_caption(self, question: Question, caption: str) -> dict[str, float]:
        return {"words": float(len(caption.split()))}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("policy"), "qwen2_5_vl")


def make_module(
    folder: Path, script: Any = by_caption, up: bool = True, policy: dict[str, Any] | None = None, **objective: Any
) -> RacroModule:
    settings = {"dtype": "float32", "min_pixels": 3136, "max_pixels": 12544, "lora": LoraSettings(4, 8)} | (
        policy or {}
    )
    return RacroModule(
        PolicySettings(path=str(folder), **settings),
        TransformersEngine(group_size=4, max_new_tokens=6, questions_per_batch=3),
        Scorer(ScriptedReasoner(script, up), cache="off"),
        ObjectiveSettings(**({"learning_rate": 1e-2, "updates_per_rollout": 1, "kl_coefficient": 0.05} | objective)),
    )


def fit(module: RacroModule, root: Path, steps: int = 1, ckpt: str | None = None, **trainer: Any) -> Trainer:
    seed_everything(3)
    options = {
        "max_steps": steps, "logger": False, "enable_checkpointing": False, "max_epochs": -1,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "limit_val_batches": 0,
        "default_root_dir": str(root), "plugins": [RacroCheckpointIO()], "inference_mode": False,
    } | trainer_options() | trainer  # fmt: skip
    runner = Trainer(**options)
    runner.fit(module, datamodule=ListData(questions(8), 4), ckpt_path=ckpt)
    return runner


def adapter(module: RacroModule) -> dict[str, torch.Tensor]:
    """Copies in main memory, where Lightning moves a module when its fit ends."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in module.state_dict().items()}


class RedPictures(Reader):
    """Pictures whose questions all have the answer that ``by_caption`` gives to half of the captions."""

    def read(self, split: Split) -> ReadResult:
        return ReadResult(questions(8) if split == "train" else [])


def fit_pictures(module: RacroModule, root: Path, ckpt: str | None = None) -> None:
    """Two steps, of whose order a resumed run takes up the rest; a checkpoint ``step=N.ckpt`` after each."""
    seed_everything(3)
    options = {
        "max_steps": 2, "max_epochs": -1, "logger": False, "default_root_dir": str(root), "enable_progress_bar": False,
        "enable_model_summary": False, "limit_val_batches": 0, "num_sanity_val_steps": 0, "inference_mode": False,
        "plugins": [RacroCheckpointIO()],
        "callbacks": [ModelCheckpoint(root, "{step}", every_n_train_steps=1, save_top_k=-1)],
    } | trainer_options()  # fmt: skip
    data = RacroDataModule(RedPictures(), questions_per_step=3)
    Trainer(**options).fit(module, datamodule=data, ckpt_path=ckpt)


def moved(module: RacroModule) -> bool:
    """Whether the adapter does anything."""
    return any(bool(tensor.any()) for name, tensor in adapter(module).items() if "lora_B" in name)


def assert_same_adapter(one: RacroModule, other: RacroModule) -> None:
    found, expected = adapter(one), adapter(other)
    assert found.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []


@pytest.fixture(scope="module")
def checkpoint(folder, tmp_path_factory) -> Path:
    """Of a run of two updates; its settings are those of ``make_module``."""
    place = tmp_path_factory.mktemp("before")
    trainer = fit(make_module(folder), place, steps=2)
    trainer.save_checkpoint(place / "two.ckpt")
    return place / "two.ckpt"


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What the user is told about the resumption."""
    told: list[str] = []
    monkeypatch.setattr(resuming, "rank_zero_info", told.append)
    return told
