"""Our side of scripts/bench_step.py: RacroModule under a Lightning Trainer, timed step by step.

python scripts/step_bench/ours.py WORKLOAD MODEL OUT.json --steps 8 --warmup 2
python scripts/step_bench/ours.py WORKLOAD MODEL OUT.safetensors --check ADAPTER.safetensors
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from safetensors.torch import save_file
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))

from racro_pl.losses import advantages
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.reward import RewardFunction
from racro_pl.reward.scorer import Scorer
from racro_pl.rollout import TransformersEngine
from racro_pl.training.module import RacroModule
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import ImageRef, Question, Rewards, Rollout
from step_bench.measure import Recorder, machine
from step_bench.server import client
from step_bench.workloads import (
    KL_COEFFICIENT,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    Workload,
    find_workload,
    fixed_captions,
    make_rows,
)


class GivenRewards(RewardFunction):
    """Stands where a Scorer stands: a number per caption, at once."""

    max_unscored_share = 0.0

    def __init__(self, values: Iterator[float]) -> None:
        self.values = values

    def submit(self, question: Question, texts: Sequence[str], seed: int = 0) -> Any:
        n = len(texts)
        total = tuple(next(self.values) for _ in texts)
        rewards = Rewards(total, {}, (True,) * n, (None,) * n, ((),) * n, ((),) * n)
        return SimpleNamespace(result=lambda: rewards)

    def check(self) -> None: ...

    def close(self) -> None: ...

    def drain_stats(self) -> dict[str, float]:
        return {}


class GivenCaptions(TransformersEngine):
    """Samples nothing: the captions to compare losses on."""

    captions: list[list[int]]

    def sample(self, captioner: Any, questions: Any, adapter_version: int) -> Iterator[Rollout]:
        for index, (question, prompt) in enumerate(questions):
            ids = torch.tensor(self.captions[index * self.group_size : (index + 1) * self.group_size])
            some = (("",) * len(ids), (True,) * len(ids))
            yield Rollout(question, prompt, ids, torch.ones_like(ids).bool(), None, *some, adapter_version)


class Questions(LightningDataModule):
    def __init__(self, workload: Workload, steps: int) -> None:
        super().__init__()
        rows = make_rows(workload, workload.questions * steps)
        self.questions = {
            "train": [
                Question(str(index), (ImageRef(data=png),), text, "red", "text")
                for index, (text, png) in enumerate(rows)
            ]
        }
        self.questions_per_step = workload.questions

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.questions["train"], self.questions_per_step, collate_fn=list)  # type: ignore[arg-type]


class PlainPath(Callback):
    """The step as the model's own forward and ``generate`` make it."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.captioner.use_plain_path("it is what is timed")


class Timing(Callback):
    def __init__(self) -> None:
        self.recorder = Recorder()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        # Captions of exactly the workload's length, as the peer forces them: nothing ends one.
        pl_module.captioner.eos_ids = frozenset({-1})
        self.recorder.count(pl_module.captioner.model.get_base_model())
        self.recorder.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        phases = {n.split("/")[1]: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("seconds/")}
        del phases["step"], phases["idle"]  # the whole, and a part of the others
        self.recorder.finish(phases)
        self.recorder.steps[-1]["cache_hit_share"] = float(trainer.callback_metrics.get("images/cache_hit_share", 0.0))
        self.recorder.start()


class Gradients(Callback):
    """Starts from an adapter that has learnt, and keeps the step's loss and gradients."""

    def __init__(self, adapter: Path, out: Path) -> None:
        self.adapter, self.out = adapter, out

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        # Two deliberate differences of the objectives, switched off for the comparison: special tokens take
        # probability mass in the peer's, and its advantages have a larger constant in the denominator.
        pl_module.captioner.banned.fill_(False)
        advantages.STD_EPSILON = 1e-4
        model = pl_module.captioner.model
        draw = torch.Generator().manual_seed(0)
        trained = {n: p for n, p in sorted(model.named_parameters()) if p.requires_grad}
        with torch.no_grad():
            for parameter in trained.values():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
        save_file({n: p.detach().clone() for n, p in trained.items()}, self.adapter)
        trainer.optimizers[0].register_step_pre_hook(lambda *_: self._keep(trained))

    def _keep(self, trained: dict[str, torch.nn.Parameter]) -> None:
        self.gradients = {n: p.grad.clone() for n, p in trained.items()}  # type: ignore[union-attr]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        save_file(self.gradients | {"loss": trainer.callback_metrics["policy/loss"].float()}, self.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", type=find_workload)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server", help="address of a reasoner that takes its time (slow-reward)")
    parser.add_argument("--check", type=Path, help="compare losses: write the adapter here, loss and gradients to OUT")
    parser.add_argument("--plain", action="store_true", help="on the plain path")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    workload = options.workload
    steps = 1 if options.check else options.warmup + options.steps
    policy = PolicySettings(
        path=str(options.model),
        lora=LoraSettings(LORA_RANK, LORA_ALPHA),
        dtype="float32",
        gradient_checkpointing=False,
        image_cache_mib=workload.image_cache_mib,
        min_pixels=28 * 28,
        max_pixels=workload.image_side**2,
    )
    objective = ObjectiveSettings(
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        updates_per_rollout=1,
        micro_batch_size=workload.micro_batch,
        kl_coefficient=KL_COEFFICIENT,
        max_grad_norm=1e9 if options.check else 1.0,
    )
    engine: TransformersEngine = TransformersEngine(
        workload.group, workload.tokens, questions_per_batch=workload.questions_per_batch
    )
    draw = random.Random(0)
    scorer: Any = GivenRewards(iter(lambda: float(draw.randrange(2)), None))
    if options.check:
        engine = GivenCaptions(workload.group, workload.tokens)
        engine.captions, values = fixed_captions(workload)
        scorer = GivenRewards(iter(values))
    elif options.server:
        scorer = Scorer(client(options.server), cache="off")
    watch = Gradients(options.check, options.out) if options.check else Timing()
    callbacks = [PlainPath(), watch] if options.plain else [watch]
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, barebones=False, inference_mode=False,
    )  # fmt: skip
    trainer.fit(RacroModule(policy, engine, scorer, objective), datamodule=Questions(workload, steps))
    if isinstance(watch, Timing):
        versions = {"torch": torch.__version__}
        result = {"steps": watch.recorder.steps[options.warmup :], "machine": machine(), "versions": versions}
        options.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
