"""Our side of scripts/bench_gpu.py: the step's own functions on a random 4-bit model of a real size.

python scripts/step_bench/gpu_ours.py WORKLOAD PROCESSOR_FOLDER OUT.json --steps 2 --warmup 1 --device cuda
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from racro_pl.experience import reward_free_logprobs, with_advantages
from racro_pl.losses import VARIANTS, grpo_loss
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.loading import load_encoder, make_trainable
from racro_pl.rollout import TransformersEngine
from racro_pl.training.gradients import normalise_gradients
from racro_pl.types import ImageRef, Question, Rewards
from step_bench.gpu_case import Case, run_case
from step_bench.measure import Recorder
from step_bench.quantised import build_quantised
from step_bench.workloads import (
    KL_COEFFICIENT,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    Workload,
    make_rows,
    save_processor,
)


def settings_of(workload: Workload, folder: Path) -> PolicySettings:
    """4-bit weights and checkpointing, as on a small card."""
    return PolicySettings(
        path=str(folder), quantization="nf4", lora=LoraSettings(LORA_RANK, LORA_ALPHA), gradient_checkpointing=True,
        min_pixels=28 * 28, max_pixels=workload.image_side**2,
    )  # fmt: skip


def build(workload: Workload, folder: Path, device: torch.device) -> Captioner:
    """The captioner as ``policy.quantization: nf4`` makes it."""
    settings = settings_of(workload, folder)
    model = build_quantised(save_processor(workload, folder), device)
    captioner = make_trainable(model, settings, device, load_encoder(settings))
    captioner.eos_ids = frozenset({-1})  # captions of exactly the workload's length: nothing ends one
    return captioner


def steps(case: Case) -> Recorder:
    recorder = Recorder()
    captioner = build(case.workload, case.folder, case.device)
    recorder.count(captioner.model.get_base_model())
    run_steps(captioner, case.workload, case.steps, recorder)
    return recorder


def run_steps(captioner: Captioner, workload: Workload, count: int, recorder: Recorder) -> None:
    """``count`` steps with an optimizer of their own, each a record."""
    draw = random.Random(0)
    trained = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    engine = TransformersEngine(workload.group, workload.tokens)
    rows = make_rows(workload, workload.questions * count)
    variant = replace(VARIANTS["grpo"], kl_coefficient=KL_COEFFICIENT)
    for step in range(count):
        recorder.start()
        with captioner.cache_image_features():
            with recorder.phase("sample"):
                questions = [
                    Question(str(index), (ImageRef(data=png),), text, "red", "text")
                    for index, (text, png) in enumerate(
                        rows[step * workload.questions : (step + 1) * workload.questions]
                    )
                ]
                encoded = [(question, captioner.encode(question)) for question in questions]
                rollouts = list(engine.sample(captioner, encoded, step))
            with recorder.phase("logprobs"):
                pending = reward_free_logprobs(captioner, rollouts, old=False, reference=True, temperature=1.0)
            with recorder.phase("update"):
                experience = with_advantages(pending, [_rewards(workload.group, draw) for _ in rollouts])
                inputs = (experience.prompts, experience.group_index, experience.token_ids, experience.mask)
                logprobs, _ = captioner.logprobs(*inputs)
                loss = grpo_loss(
                    logprobs, None, experience.ref_logprobs, experience.advantages, experience.mask, variant=variant
                ).loss  # fmt: skip
                loss.backward()
            with recorder.phase("optimizer"):
                normalise_gradients(trained, float(experience.mask.sum()), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        recorder.finish()


def _rewards(group: int, draw: random.Random) -> Rewards:
    total = tuple(float(draw.randrange(2)) for _ in range(group))
    return Rewards(total, {}, (True,) * group, (None,) * group, ((),) * group, ((),) * group)


if __name__ == "__main__":
    run_case(__doc__, steps)
