"""One model's captions sampled in four ways: as a CUDA graph, one operation at a time, leaving, and by transformers.

Seconds and launches of a token are those of many tokens less those of few, over the tokens between: prompts, and the
capture of the graph, are in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
from step_bench.workloads import Workload, make_rows
from torch.profiler import ProfilerActivity, profile

from racro_pl.policy import decoding, paths
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.sampling import sample_captions
from racro_pl.types import ImageRef, Prompt, Question

FEW, MANY = 8, 40
"""Tokens of the two runs."""


def sampling_ways(captioner: Captioner, workload: Workload, device: torch.device) -> dict[str, dict[str, float]]:
    """Milliseconds and kernels of one token of a group, by way."""
    text, png = make_rows(workload, 1)[0]
    prompt = captioner.encode(Question("0", (ImageRef(data=png),), text, "red", "text"))

    def ours(tokens: int) -> None:
        captioner.generate([prompt], workload.group, tokens, 1.0)

    found = {}
    with captioner.cache_image_features():
        if device.type == "cuda":
            found["graph"] = per_token(ours, device)
        with mock.patch.object(decoding, "captured", lambda step: step):
            found["static, launched one by one"] = per_token(sampled(ours, static=True), device)
        found["growing"] = per_token(sampled(ours, static=False), device)
        found["transformers generate"] = per_token(partial(generate, captioner, prompt, workload.group), device)
    return found


def sampled(run: Callable[[int], None], static: bool) -> Callable[[int], None]:
    """The run by one of our loops."""

    def chosen(tokens: int) -> None:
        with mock.patch.object(paths, "sample_captions", partial(sample_captions, static=static)):
            run(tokens)

    return chosen


@torch.no_grad()
def generate(captioner: Captioner, prompt: Prompt, group: int, tokens: int) -> None:
    """By transformers, adapters in place, as neighbours do it; no caption ends."""
    device = captioner.device
    captioner.eval()
    captioner.model.generate(
        input_ids=prompt.input_ids[None].to(device), attention_mask=torch.ones_like(prompt.input_ids)[None].to(device),
        mm_token_type_ids=prompt.mm_token_type_ids[None].to(device),
        **{name: tensor.to(device) for name, tensor in prompt.vision.items()},
        do_sample=True, num_return_sequences=group, max_new_tokens=tokens, min_new_tokens=tokens,
        pad_token_id=captioner.pad_id,
    )  # fmt: skip
    captioner.train()


def per_token(run: Callable[[int], None], device: torch.device) -> dict[str, float]:
    """Milliseconds by the clock, and on a card kernels and the milliseconds that they took."""
    run(FEW)  # first calls prepare
    few, many = (seconds(run, tokens, device) for tokens in (FEW, MANY))
    found = {"ms": 1e3 * (many - few) / (MANY - FEW)}
    if device.type == "cuda":
        (kernels_few, busy_few), (kernels_many, busy_many) = (launched(run, tokens) for tokens in (FEW, FEW + 4))
        found |= {"kernels": (kernels_many - kernels_few) / 4, "busy_ms": (busy_many - busy_few) / 4}
    return {name: round(value, 3) for name, value in found.items()}


def seconds(run: Callable[[int], None], tokens: int, device: torch.device) -> float:
    begun = time.perf_counter()
    run(tokens)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def launched(run: Callable[[int], None], tokens: int) -> tuple[int, float]:
    """Kernels, and the milliseconds they took."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run(tokens)
        torch.cuda.synchronize()
    events: list[Any] = [event for event in seen.events() if str(event.device_type).endswith("CUDA")]
    return len(events), sum(event.time_range.elapsed_us() for event in events) / 1e3
