"""A short fit whose captions are fixed, for comparing one process with several (`tests.helpers.ranks`).

Every rank writes ``OUT.<rank>.pt``: the gradient of every update, the adapter, what was logged last, the longest
step (seconds), and the error that ended the run. ``outage``: the second rank's reasoner answers the check at the start
and hangs from then on; ``stop``: so it does, and that is more than the run allows; ``joint``: captions and answers.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.distributed.tensor import DTensor

from racro_pl.losses import VARIANTS
from racro_pl.policy.captioner import Captioner
from racro_pl.reward import HttpReasoner, UnscoredError
from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.rollout import RolloutError
from racro_pl.rollout.engine import EncodedQuestion
from racro_pl.training.checkpointing.io import RacroCheckpointIO
from racro_pl.types import ImageRef, Question, Rewards, Rollout
from tests.fakes.engines import FixedEngine
from tests.fakes.reasoner_server import FaultServer
from tests.unit.training.conftest import ListData, adapter, by_caption, make_module, questions

OUTAGE_DEADLINE_S = 3.0


class LostEngine(FixedEngine):
    """The second rank's is gone after the first of two groups of the second step."""

    def sample(self, captioner: Captioner, questions: Sequence[EncodedQuestion], version: int) -> Iterator[Rollout]:
        for index, rollout in enumerate(super().sample(captioner, questions, version)):
            if version and index and os.environ["RANK"] == "1":
                raise RolloutError("scripted: the rollout server is gone")
            yield rollout


class Watch(Callback):
    """Keeps the flat gradient of every update, those that bypass Lightning's counter included."""

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        self.gradients: list[torch.Tensor] = []
        self.longest_step = 0.0
        trainer.optimizers[0].register_step_pre_hook(
            lambda optimizer, *_: self.gradients.append(
                torch.cat([whole(p.grad).flatten().clone() for p in optimizer.param_groups[0]["params"]])
            )
        )

    def on_train_batch_start(self, *args: object) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, *args: object) -> None:
        self.longest_step = max(self.longest_step, time.monotonic() - self.started)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def silent_for_odd(prompt: str) -> str | None:
    """Answers nothing about the odd questions, which are those of the second of two ranks."""
    return None if "figure x ?" in prompt or "figure xxx ?" in prompt else by_caption(prompt)


class GradedByChecksum(OwnAnswers):
    """A random model writes no box: about half of its texts are right."""

    def grade(self, question: Question, texts: Sequence[str]) -> Rewards:
        right = tuple(float(zlib.crc32(text.encode()) % 2) for text in texts)
        none = ((),) * len(texts)
        return Rewards(right, {"correct": right}, (True,) * len(texts), (None,) * len(texts), none, none)


def served_reasoner(script: list[str]) -> HttpReasoner:
    """This rank's own, behind a server that lives as long as the process."""
    server = FaultServer(script, answer=lambda chat: by_caption(chat[-1]["content"])).__enter__()
    reasoner = HttpReasoner(server.url, deadline_s=100.0, attempts=2)
    if "hang" in script:
        check = reasoner.check

        def check_and_set_limit() -> None:
            check()
            reasoner._open()._deadline_s = OUTAGE_DEADLINE_S

        reasoner.check = check_and_set_limit  # type: ignore[method-assign]
    return reasoner


def fit_rank(rank: int, ranks: int, folder: Path, out: Path, *options: str) -> None:
    """What one of ``ranks`` processes does; the options are those above and those below."""
    script = silent_for_odd if "silent" in options else by_caption
    # A learning rate that moves nothing: AdamW turns the rounding of a gradient near zero into a whole step.
    policy: dict[str, Any] = {"quantization": "nf4"} if "nf4" in options else {}
    if "full" in options:
        policy = {"lora": None, "freeze_vision": "vision" not in options}
    strategy = "fsdp2" if "fsdp2" in options else "ddp"
    loss = next((option for option in options if option in VARIANTS), "grpo")
    joint: dict[str, Any] = {"name": "joint", "answer_weight": 0.25} if "joint" in options else {}
    module = make_module(
        folder, script, policy=policy, loss=loss, micro_batch_size=4, updates_per_rollout=2, learning_rate=1e-12,
        **joint,
    )  # fmt: skip
    if joint:
        module._own_answers = GradedByChecksum()
    lost = "lost" in options
    module.engine = (LostEngine if lost else FixedEngine)(group_size=4, max_new_tokens=6)
    module.objective.refill_rounds = 2 if lost else 0
    module.scorer.max_unscored_share = 0.4 if "stop" in options else 1.0
    if "outage" in options or "stop" in options:
        module.scorer.reasoner = served_reasoner(["ok", "hang"] if rank == 1 else ["ok"])
    watch = Watch()
    seed_everything(3)
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy=strategy if ranks > 1 else "auto", max_steps=2, max_epochs=-1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, default_root_dir=out.parent, inference_mode=False, callbacks=[watch],
        plugins=[RacroCheckpointIO()], use_distributed_sampler=False,
    )  # fmt: skip
    items = questions(16)
    if "broken" in options:
        items[3::4] = [replace(item, images=(ImageRef(data=b"no image"),)) for item in items[3::4]]
    error = ""
    try:
        trainer.fit(module, datamodule=ListData(items[rank::ranks], 8 // ranks))
    except (RolloutError, UnscoredError) as stop:
        error = str(stop)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    torch.save(
        {
            "gradients": watch.gradients, "weights": {name: whole(tensor) for name, tensor in adapter(module).items()},
            "logged": logged, "error": error,
            "longest_step": watch.longest_step,
        },
        f"{out}.{rank}.pt",
    )  # fmt: skip
