"""Two parts of a step against what could stand in their place, on random numbers in a model's shapes.

Attention of a packed group: ours against FlexAttention (compiled, with a block mask), and ours at lengths that were not
met before, with cuDNN's kernels and without: cuDNN may build a plan for every new shape, and nearly every micro-batch
has one. The head: in chunks against all logits at once. Forward and backward of one layer; on a CPU, where
FlexAttention has no backward, forward alone.
A case of scripts/bench_gpu.py, with its arguments.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

sys.path.insert(0, str(Path(__file__).parents[1]))

from racro_pl.losses import head_logprobs, token_logprobs
from racro_pl.policy.attention import GroupAttention, Rows
from step_bench.gpu_case import Case, run_case
from step_bench.measure import Recorder
from step_bench.workloads import Workload

TEXT_TOKENS = 83
"""Of a prompt, besides the image."""


class FlexGroups:
    """The attention of :class:`GroupAttention` as one FlexAttention call over the whole row."""

    def __init__(self, attention: GroupAttention, kernel: Callable[..., Any] = flex_attention) -> None:
        prompts, captions = attention.prompts.real, attention.captions.real
        device = prompts.device
        group = torch.cat([_row_numbers(prompts), attention.group[_row_numbers(captions)]])
        # Prompts are caption -1 of their group: seen by all of it.
        caption = torch.cat([torch.full_like(_row_numbers(prompts), -1), _row_numbers(captions)])

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = (caption[key] == -1) | (caption[key] == caption[query])
            return (query >= key) & (group[query] == group[key]) & same

        self.mask = create_block_mask(visible, None, None, len(group), len(group), device=str(device))
        self.kernel = kernel

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        out = self.kernel(query, key, value, block_mask=self.mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2)


def _row_numbers(real: Tensor) -> Tensor:
    """For each token of ragged rows, which row it is in."""
    return torch.arange(len(real), device=real.device)[:, None].expand_as(real)[real]


def group_rows(workload: Workload, device: torch.device, longer: int = 0) -> GroupAttention:
    """One question's prompt, by so many tokens longer, and its captions, none padded."""
    prompt = (workload.image_side // 28) ** 2 + TEXT_TOKENS + longer
    return GroupAttention(
        Rows(torch.ones(1, prompt, dtype=torch.bool, device=device)),
        Rows(torch.ones(workload.group, workload.tokens - 1, dtype=torch.bool, device=device)),
        torch.zeros(workload.group, dtype=torch.long, device=device),
    )


def steps(case: Case) -> Recorder:
    workload, device, recorder = case.workload, case.device, Recorder()
    ours = group_rows(workload, device)
    compiled = torch.compile(flex_attention) if device.type == "cuda" else flex_attention
    d = workload.hidden // workload.heads
    learning = device.type == "cuda"
    draw = {"device": device, "dtype": torch.bfloat16, "requires_grad": learning}
    longer = itertools.count(1)

    def states_of(rows: GroupAttention) -> list[Tensor]:
        tokens = len(rows.prompts.cells) + len(rows.captions.cells)
        return [torch.randn(1, heads, tokens, d, **draw) for heads in (workload.heads, *(2 * [workload.kv_heads]))]

    def at_a_new_shape(cudnn: bool) -> Tensor:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        rows = group_rows(workload, device, next(longer))
        out = rows(0, *states_of(rows), d**-0.5)
        torch.backends.cuda.enable_cudnn_sdp(True)
        return out

    states = states_of(ours)
    hidden = torch.randn(workload.group * workload.tokens, workload.hidden, **draw)
    head = torch.randn(workload.vocabulary or 1000, workload.hidden, device=device, dtype=torch.bfloat16) * 0.02
    banned = torch.zeros(len(head), dtype=torch.bool, device=device)
    ids = torch.randint(len(head), (len(hidden),), device=device)
    flex = FlexGroups(ours, compiled)
    parts: dict[str, Callable[[], Tensor]] = {
        "attention, ours": lambda: ours(0, *states, d**-0.5),
        "attention, flex": lambda: flex(0, *states, d**-0.5),
        "attention, a new shape": lambda: at_a_new_shape(True),
        "attention, a new shape without cuDNN": lambda: at_a_new_shape(False),
        "head, in chunks": lambda: head_logprobs(lambda rows: rows @ head.T, hidden, ids, banned)[0],
        "head, at once": lambda: token_logprobs(hidden @ head.T, ids, banned)[0],
    }
    for _ in range(case.steps):
        recorder.start()
        for name, part in parts.items():
            with recorder.phase(name):
                out = part().float().square().sum()
                if learning:
                    out.backward()
        recorder.finish()
    return recorder


if __name__ == "__main__":
    run_case(__doc__, steps)
