"""The peer's side of scripts/bench_gpu.py: TRL's GRPOTrainer on the same random 4-bit model.

Runs in an environment of its own (trl, bitsandbytes and what trl_peer.py needs), with the arguments of gpu_ours.py.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import AutoProcessor
from transformers.trainer_callback import PrinterCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from step_bench.gpu_case import Case, run_case
from step_bench.measure import Recorder
from step_bench.quantised import build_quantised
from step_bench.trl_peer import RECORDER, Steps, Timed, dataset, rewards, settings
from step_bench.workloads import LINEARS, LORA_ALPHA, LORA_RANK, save_processor


def steps(case: Case) -> Recorder:
    model = build_quantised(save_processor(case.workload, case.folder), case.device)
    gpu = case.device.type == "cuda"
    options = settings(case.workload, case.steps, check=False, use_cpu=not gpu, bf16=gpu, gradient_checkpointing=True)
    trainer = Timed(
        model=model,
        reward_funcs=rewards(None, None),
        args=options,
        train_dataset=dataset(case.workload, case.steps),
        processing_class=AutoProcessor.from_pretrained(case.folder, padding_side="left", truncation_side="left"),
        peft_config=LoraConfig(
            r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.0, task_type="CAUSAL_LM",
            target_modules=rf".*language_model.*\.({LINEARS})",
        ),
        callbacks=[Steps()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    RECORDER.count(trainer.model.get_base_model())
    time_optimizer(trainer)
    trainer.train()
    return RECORDER


def time_optimizer(trainer: Any) -> None:
    """The optimizer's step as a phase of its own."""
    create, opened = trainer.create_optimizer, ExitStack()

    def timed(*arguments: Any, **named: Any) -> Any:
        optimizer = create(*arguments, **named)
        optimizer.register_step_pre_hook(lambda *_: opened.enter_context(RECORDER.phase("optimizer")) and None)
        optimizer.register_step_post_hook(lambda *_: opened.close())
        return optimizer

    trainer.create_optimizer = timed


if __name__ == "__main__":
    run_case(__doc__, steps)
