"""The worst step, tried before the first: what would not fit is told now, with what to change, not hours later."""

from __future__ import annotations

import dataclasses

import torch
from lightning.pytorch import Callback, Trainer

from racro_pl.policy.memory.ledger import CACHE, FEATURES, GIB, OPTIMIZER, OTHER_GRADIENTS, planning_config
from racro_pl.rollout import TransformersEngine
from racro_pl.terminal import Console
from racro_pl.training.distributed import join_ranks
from racro_pl.training.memory import Plan, advise, with_prompt
from racro_pl.training.metrics.step import peak_process_gib
from racro_pl.training.module import RacroModule
from racro_pl.training.startup import keep_gradients_local
from racro_pl.training.strategy import ShardedStrategy
from racro_pl.types import Prompt, RacroError


class Preflight(Callback):
    """Before training: reads the longest prompts, then forwards and differentiates one full micro-batch of longest
    captions, on every rank by itself, and prints the memory ledger beside the peak that was measured.

    What such a step would hold besides (AdamW's moments, image features of the other questions, keys and values of
    captions) is held as empty memory. Weights, gradients, optimizer and random streams are afterwards as before.
    Costs about a step without its sampling, so only GPUs are tried unless asked: on a CPU memory is seldom what runs
    out, and running out ends the process without an exception that could be caught.

    Args:
        on_cpu: try it on a CPU too.
    """

    def __init__(self, on_cpu: bool = False) -> None:
        self.on_cpu = on_cpu

    def on_train_start(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Try the worst step.

        Raises:
            RacroError: it does not fit, on this rank or another; with the ledger and the settings that would make it
                fit.
        """
        device = pl_module.captioner.device
        if device.type != "cuda" and not self.on_cpu:
            return
        if pl_module.captioner.plain_because is not None:
            pl_module.print("preflight: memory was not tried: its formulas are those of the shared-prefix path")
            return
        fault = _try(trainer, pl_module, device)
        # All ranks end together: one that ended alone would leave the others waiting in their first collective.
        told = next((told for told in join_ranks([fault]) if told is not None), None)
        if told is not None:
            raise RacroError(told)


def _try(trainer: Trainer, module: RacroModule, device: torch.device) -> str | None:
    """Why this rank's worst step does not fit; None where it does, or was not tried, which is printed.

    Raises:
        RacroError: it does not fit, and the other ranks wait within the step for this one's part of the weights.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    encoded = module.encode_readable([data.longest["train"]])
    if not encoded:
        module.print("preflight: the longest prompt's image is broken; memory was not tried")
        return None
    prompt = encoded[0][1]
    config = planning_config(module.policy_settings.path)
    questions = data.questions_per_step // trainer.world_size
    tokens = len(prompt.input_ids), int(prompt.mm_token_type_ids.sum())
    plan = with_prompt(module, config, questions, *tokens)
    available = _available(device)
    keep_gradients_local(trainer)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with trainer.precision_plugin.train_step_context():  # casts to bfloat16 are kept too
            _worst_step(module, prompt, plan, fresh=not trainer.optimizers[0].state)
    except torch.OutOfMemoryError as error:
        fault = _too_much(plan, available, str(error))
        if isinstance(trainer.strategy, ShardedStrategy):
            raise RacroError(fault) from error
        return fault  # without the error, whose traceback holds the step's tensors
    finally:
        module.captioner.zero_grad(set_to_none=True)
        measured = _peak(device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    if trainer.is_global_zero:
        console = Console()
        for line in [*plan.lines(), measured]:
            console.say(line)
    return None


def _worst_step(module: RacroModule, prompt: Prompt, plan: Plan, *, fresh: bool) -> None:
    """Forward and backward as a step does, without drawing a random number or touching a weight."""
    captioner, work, ledger = module.captioner, plan.work, plan.ledger
    device = captioner.device
    with captioner.cache_image_features():
        held = [torch.empty(ledger.bytes_of(FEATURES), dtype=torch.uint8, device=device)]
        held.append(torch.empty(ledger.bytes_of(OTHER_GRADIENTS), dtype=torch.uint8, device=device))
        if fresh:
            held.append(torch.empty(ledger.bytes_of(OPTIMIZER), dtype=torch.uint8, device=device))
        if isinstance(module.engine, TransformersEngine):
            cache = torch.empty(ledger.bytes_of(CACHE), dtype=torch.uint8, device=device)
            captioner.generate(_copies(prompt, work.sampled_together), work.group_size, 1, None)
            del cache
        size = (work.groups * work.group_size, work.caption_tokens)
        written = int((~captioner.banned).nonzero()[0])
        token_ids = torch.full(size, written)
        index = torch.arange(work.groups).repeat_interleave(work.group_size)
        mask = torch.ones(size, dtype=torch.bool)
        prompts = _copies(prompt, work.groups)
        logprobs, _ = captioner.logprobs(prompts, index, token_ids, mask, module.engine.temperature)
        logprobs.sum().backward()
        del held


def _copies(prompt: Prompt, count: int) -> list[Prompt]:
    # Images are told apart by what the processor made of them: every copy's is encoded again.
    return [dataclasses.replace(prompt, vision=dict(prompt.vision)) for _ in range(count)]


def _available(device: torch.device) -> int | None:
    """Bytes that this process has or can get on a GPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def _peak(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{'measured':<34}{torch.cuda.max_memory_allocated(device) / GIB:7.2f}"
    return f"{'measured: the whole process':<34}{peak_process_gib():7.2f}"


def _too_much(plan: Plan, available: int | None, error: str) -> str:
    """What did not fit, and what would."""
    # Whatever the ledger says, this much did not fit.
    limit = min(available or plan.ledger.peak, plan.ledger.peak - 1)
    there = f" of {available / GIB:.1f} GiB that are free here" if available else ""
    lines = [
        f"a step does not fit into memory ({error.splitlines()[0] if error else 'out of memory'}). By the ledger its "
        f"peak is {plan.ledger.peak / GIB:.1f} GiB{there}.",
        *plan.lines(),
        "to make it fit, set one of these (or those joined by 'and'), what costs least first:",
        *(f"  {line}" for line in advise(plan, limit)),
    ]
    return "\n".join(lines)
