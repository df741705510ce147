"""A short fit whose captions are fixed, for comparing one process with several. Run by torch.distributed.run.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.fakes.ddp_fit MODEL_FOLDER OUT [nf4|silent|LOSS]

Every rank writes ``OUT.<rank>.pt``: the gradient of every update, the adapter, and what was logged last.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from racro_pl.losses import VARIANTS
from racro_pl.policy.captioner import Captioner
from racro_pl.rollout.engine import EncodedQuestion, RolloutEngine
from racro_pl.training.checkpoints import RacroCheckpointIO
from racro_pl.types import Rollout
from tests.unit.training.conftest import ListData, adapter, by_caption, make_module, questions


class FixedEngine(RolloutEngine):
    """Ragged captions that follow from the question's id alone."""

    def sample(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> Iterator[Rollout]:
        for question, prompt in questions:
            generator = torch.Generator().manual_seed(zlib.crc32(question.id.encode()))
            lengths = torch.randint(1, 7, (self.group_size,), generator=generator)
            mask = torch.arange(6)[None] < lengths[:, None]
            allowed = (~captioner.banned).nonzero()[:, 0].cpu()
            token_ids = allowed[torch.randint(0, len(allowed), mask.shape, generator=generator)]
            texts = tuple(captioner.encoder.tokenizer.batch_decode(token_ids))
            if question.id == "3":  # a group without signal
                token_ids, mask, texts = token_ids[:1].repeat(4, 1), mask[:1].repeat(4, 1), (texts[0],) * 4
            yield Rollout(question, prompt, token_ids, mask, None, texts, (True,) * 4, adapter_version)

    def describe(self, captioner: Captioner, questions: Sequence[EncodedQuestion]) -> list[str]:
        raise NotImplementedError("this fit does not validate")


class Watch(Callback):
    """Keeps the flat gradient of every update, those that bypass Lightning's counter included."""

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        self.gradients: list[torch.Tensor] = []
        trainer.optimizers[0].register_step_pre_hook(
            lambda optimizer, *_: self.gradients.append(
                torch.cat([p.grad.flatten().clone() for p in optimizer.param_groups[0]["params"]])
            )
        )


def silent_for_odd(prompt: str) -> str | None:
    """Answers nothing about the odd questions, which are those of the second of two ranks."""
    return None if "figure x ?" in prompt or "figure xxx ?" in prompt else by_caption(prompt)


def main(folder: str, out: str, *options: str) -> None:
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    script = silent_for_odd if "silent" in options else by_caption
    # A learning rate that moves nothing: AdamW turns the rounding of a gradient near zero into a whole step.
    policy = {"quantization": "nf4"} if "nf4" in options else None
    loss = next((option for option in options if option in VARIANTS), "grpo")
    module = make_module(
        Path(folder), script, policy=policy, loss=loss, micro_batch_size=4, updates_per_rollout=2, learning_rate=1e-12
    )
    module.engine = FixedEngine(group_size=4, max_new_tokens=6)
    module.scorer.max_unscored_share = 1.0
    watch = Watch()
    seed_everything(3)
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_steps=2, max_epochs=-1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, default_root_dir=Path(out).parent, inference_mode=False, callbacks=[watch],
        plugins=[RacroCheckpointIO()], use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=ListData(questions(16)[rank::ranks], 8 // ranks))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    torch.save({"gradients": watch.gradients, "weights": adapter(module), "logged": logged}, f"{out}.{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
