"""The peer's side of scripts/bench_step.py: TRL's GRPOTrainer with its best settings, timed step by step.

Runs in an environment of its own (TRL is no dependency of this project), with the arguments of ours.py.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))

from step_bench.measure import Recorder, machine
from step_bench.workloads import (
    KL_COEFFICIENT,
    LEARNING_RATE,
    LINEARS,
    LORA_ALPHA,
    LORA_RANK,
    REQUEST,
    SYSTEM,
    Workload,
    find_workload,
    fixed_captions,
    make_rows,
)

RECORDER = Recorder()


class Timed(GRPOTrainer):
    """Phases by wrapping the trainer's own methods; captions may be given."""

    given: list[list[int]] | None = None

    def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
        if self.given is not None:
            return self.given, None
        with RECORDER.phase("sample"):
            out = super()._generate_single_turn(*args, **options)
        assert {len(caption) for caption in out[0]} == {self.max_completion_length}
        return out

    def _calculate_rewards(self, *args: Any, **options: Any) -> Any:
        with RECORDER.phase("reason"):
            return super()._calculate_rewards(*args, **options)

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
        with RECORDER.phase("update" if torch.is_grad_enabled() else "logprobs"):
            return super()._get_per_token_logps_and_entropies(*args, **options)

    def _generate_and_score_completions(self, *args: Any, **options: Any) -> Any:
        with RECORDER.phase("rollout, rest"):
            return super()._generate_and_score_completions(*args, **options)

    def training_step(self, *args: Any, **options: Any) -> Any:
        with RECORDER.phase("update"):
            return super().training_step(*args, **options)


class Steps(TrainerCallback):
    def on_train_begin(self, *_: Any, **__: Any) -> None:
        RECORDER.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        RECORDER.finish()
        RECORDER.start()


def settings(workload: Workload, steps: int, check: bool, **changes: Any) -> GRPOConfig:
    captions = workload.questions * workload.group
    chosen: dict[str, Any] = dict(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=workload.micro_batch,
        gradient_accumulation_steps=captions // workload.micro_batch, num_generations=workload.group,
        num_iterations=1, beta=KL_COEFFICIENT, loss_type="grpo", scale_rewards="group", temperature=1.0,
        # Its default multiplies the KL term by the ratio: another objective, with the same work.
        use_bias_correction_kl=False,
        max_completion_length=workload.tokens, generation_kwargs={"min_new_tokens": workload.tokens},
        max_steps=steps, learning_rate=LEARNING_RATE, lr_scheduler_type="constant", optim="adamw_torch",
        max_grad_norm=1e9 if check else 1.0, bf16=False, fp16=False, gradient_checkpointing=False, use_vllm=False,
        use_cpu=True, dataloader_num_workers=0, dataloader_pin_memory=False, remove_unused_columns=False,
        shuffle_dataset=False, logging_strategy="no", save_strategy="no", eval_strategy="no", report_to="none",
        disable_tqdm=True, log_completions=False,
    )  # fmt: skip
    return GRPOConfig(**(chosen | changes))


def dataset(workload: Workload, steps: int) -> Dataset:
    rows = [
        {
            "prompt": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": REQUEST.format(question=question)},
            ],
            "image": Image.open(io.BytesIO(png), formats=("PNG",)),
        }
        for question, png in make_rows(workload, workload.questions * steps)
    ]
    chat = [{"role": Value("string"), "content": Value("string")}]
    return Dataset.from_list(rows, features=Features({"prompt": chat, "image": ImageFeature()}))


def rewards(server: str | None, values: list[float] | None) -> Any:
    draw = random.Random(0)

    def at_once(completions: Any = None, **_: Any) -> list[float]:
        return [values[i] if values else float(draw.randrange(2)) for i in range(len(completions))]

    def over_http(completions: Any = None, **_: Any) -> list[float]:
        import httpx

        async def all_of_them() -> list[float]:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=server, limits=limits, timeout=60, verify=False) as http:
                return list(await asyncio.gather(*[one(http, c[0]["content"]) for c in completions]))

        async def one(http: Any, caption: str) -> float:
            body = {"model": "bench", "messages": [{"role": "user", "content": caption}]}
            reply = (await http.post("/v1/chat/completions", json=body)).json()
            return float("red" in reply["choices"][0]["message"]["content"])

        return asyncio.run(all_of_them())

    return over_http if server else at_once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", type=find_workload)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server")
    parser.add_argument("--check", type=Path, help="compare losses: read the adapter here, loss and gradients to OUT")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    workload = options.workload
    steps = 1 if options.check else options.warmup + options.steps
    captions, values = fixed_captions(workload)
    lora = LoraConfig(
        r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules=rf".*language_model.*\.({LINEARS})",
    )  # fmt: skip
    trainer = Timed(
        model=AutoModelForImageTextToText.from_pretrained(
            options.model, dtype=torch.float32, attn_implementation="sdpa"
        ),
        reward_funcs=rewards(options.server, values if options.check else None),
        args=settings(workload, steps, bool(options.check)),
        train_dataset=dataset(workload, steps),
        processing_class=AutoProcessor.from_pretrained(options.model, padding_side="left", truncation_side="left"),
        peft_config=lora,
        callbacks=[Steps()],
    )
    trainer.remove_callback(PrinterCallback)
    RECORDER.count(trainer.model.get_base_model())
    if options.check:
        trainer.given = captions
        keep_gradients(trainer, options.check, options.out)
    trainer.train()
    if not options.check:
        versions = {module.__name__: module.__version__ for module in (torch, transformers, trl)}
        result = {"steps": RECORDER.steps[options.warmup :], "machine": machine(), "versions": versions}
        options.out.write_text(json.dumps(result))


def keep_gradients(trainer: GRPOTrainer, adapter: Path, out: Path) -> None:
    """Start from the other side's adapter; write the loss and the gradients that the optimizer would see."""
    trained = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    values = load_file(adapter)
    assert values.keys() == trained.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(values[name])
    losses: list[torch.Tensor] = []
    step = trainer.training_step
    trainer.training_step = lambda *a, **k: losses.append(step(*a, **k)) or losses[-1]  # type: ignore[func-returns-value]
    create = trainer.create_optimizer

    def watched(*args: Any, **more: Any) -> Any:
        optimizer = create(*args, **more)
        optimizer.register_step_pre_hook(
            lambda *_: save_file(
                {n: p.grad.contiguous() for n, p in trained.items()} | {"loss": torch.stack(losses).sum()}, out
            )
        )
        return optimizer

    trainer.create_optimizer = watched


if __name__ == "__main__":
    main()
