"""The loop over a caption's tokens, in two ways that write the same.

:func:`write_growing` lets captions leave when they end, and makes room as they grow. :func:`write_static` does the same
operations on the same memory at every token, so that CUDA replays them as a graph: launched one by one they take many
times as long as they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from racro_pl.policy.decode_attention import GrowingAttention, StaticAttention
from racro_pl.policy.shared_prefix import read_row
from racro_pl.policy.structure import head_of

Written = tuple[Int[Tensor, "n t"], Float[Tensor, "n t"]]
"""Tokens, and the log-probs they were drawn with."""
LOOK_EVERY = 16
"""Tokens between two looks at how many captions have ended: each look waits for the device."""
FEWEST_ROWS = 32
"""Fewer rows take as long: not worth another graph."""


@dataclass(frozen=True)
class Draw:
    """How a token is chosen, and which end a caption."""

    temperature: float | None
    """None for greedy."""
    banned: Bool[Tensor, " vocab"]
    """True for tokens that must not be drawn."""
    ends: Int[Tensor, " e"]
    pad_id: int
    """Fills the cells after an end."""

    def __call__(self, logits: Float[Tensor, "n vocab"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """One token per row, and its log-prob; 0 where greedy."""
        logits = logits.float().masked_fill(self.banned, float("-inf"))
        if self.temperature is None:
            return logits.argmax(dim=-1), logits.new_zeros(len(logits))
        probabilities = (logits / self.temperature).softmax(dim=-1)
        drawn = self.choose(probabilities)
        return drawn[:, 0], probabilities.gather(1, drawn)[:, 0].log()

    def choose(self, probabilities: Float[Tensor, "n vocab"]) -> Int[Tensor, "n 1"]:
        """An index per row."""
        return torch.multinomial(probabilities, 1)


class UncheckedDraw(Draw):
    """What ``torch.multinomial`` does for one draw, without its look at the numbers, for which the host has to wait."""

    def choose(self, probabilities: Float[Tensor, "n vocab"]) -> Int[Tensor, "n 1"]:
        return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=-1, keepdim=True)


def write_growing(
    model: Any,
    attention: GrowingAttention,
    logits: Float[Tensor, "n vocab"],
    positions: Int[Tensor, "*axes n"],
    draw: Draw,
    max_new_tokens: int,
) -> Written:
    """Captions leave when they end.

    Args:
        model: a transformers image-text-to-text model that :func:`racro_pl.policy.attention.install` has seen.
        attention: knows the prompts.
        logits: of each caption's first token.
        positions: of it.
        draw: how tokens are chosen.
        max_new_tokens: length limit, 1 or more.
    """
    head, device = head_of(model), logits.device
    captions = torch.full((len(logits), max_new_tokens), draw.pad_id, device=device)
    logprobs = torch.zeros(captions.shape, device=device)
    writing = torch.arange(len(logits), device=device)
    for step in range(max_new_tokens):
        drawn, logprobs[writing, step] = draw(logits)
        captions[writing, step] = drawn
        unended = (~torch.isin(drawn, draw.ends)).nonzero()[:, 0]
        if len(unended) == 0 or step + 1 == max_new_tokens:
            break
        if len(unended) < len(drawn):
            attention.keep(unended)
            drawn, writing, positions = drawn[unended], writing[unended], positions[..., unended]
        hidden = read_row(model, drawn[None], positions + step, attention)
        attention.advance()
        logits = head(hidden)
    return captions[:, : step + 1], logprobs[:, : step + 1]


class StaticStep:
    """One token of every caption, drawn, written and read: always by the same operations on the same memory.

    Args:
        model, logits, positions, draw, max_new_tokens: as in :func:`write_growing`.
        attention: knows the prompts.
    """

    def __init__(
        self,
        model: Any,
        attention: StaticAttention,
        logits: Float[Tensor, "n vocab"],
        positions: Int[Tensor, "*axes n"],
        draw: Draw,
        max_new_tokens: int,
    ) -> None:
        device, n = logits.device, len(logits)
        self._model = model
        self._attention = attention
        self._draw = UncheckedDraw(draw.temperature, draw.banned, draw.ends, draw.pad_id)
        self.captions = torch.full((n, max_new_tokens), draw.pad_id, device=device)
        self.logprobs = torch.zeros(self.captions.shape, device=device)
        self.lengths = torch.zeros(n, dtype=torch.long, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        self._logits, self._positions = logits.clone(), positions
        self._writing = torch.arange(n, device=device)
        self.ended = torch.zeros(n, dtype=torch.bool, device=device)

    def write(self) -> Int[Tensor, " rows"]:
        """Draw a token for every row, and write it where the row has not ended."""
        drawn, logprobs = self._draw(self._logits)
        tokens = drawn.masked_fill(self.ended, self._draw.pad_id)
        cells = (self._writing, self._step)
        self.captions.index_put_(cells, tokens)
        self.logprobs.index_put_(cells, logprobs.masked_fill(self.ended, 0.0))
        self.lengths.index_add_(0, self._writing, (~self.ended).long())
        self.ended |= (tokens[:, None] == self._draw.ends).any(dim=1)
        return tokens

    def __call__(self) -> None:
        tokens = self.write()
        hidden = read_row(self._model, tokens[None], self._positions + self._step, self._attention)
        self._attention.advance()
        self._logits.copy_(head_of(self._model)(hidden))
        self._step += 1

    def forget(self) -> None:
        """What was made within a token and serves all of its layers is made again: a capture that failed computed none
        of it."""
        self._attention.forget()

    def rows_left(self) -> int:
        """Captions that have not ended. The host waits for the device."""
        return int((~self.ended).sum())

    def make_room(self, tokens: int) -> bool:
        """For so many tokens of a caption. True where that took other memory: what was captured is of no use then."""
        return self._attention.make_room(tokens)

    def keep_writing(self) -> None:
        """Let the captions that have ended leave. What was captured before is of no use after."""
        rows = (~self.ended).nonzero()[:, 0]
        self._attention.keep(rows)
        self._logits, self._positions = self._logits[rows], self._positions[..., rows]
        self._writing, self.ended = self._writing[rows], self.ended[rows]


def write_static(step: StaticStep) -> Written:
    """As :func:`write_growing`, and the host waits for the device once in :data:`LOOK_EVERY` tokens.

    Greedy captions are the same; drawn ones too as long as none has ended, since those that have still draw.

    Raises:
        RuntimeError: a log-prob is not a number.
    """
    rows, run = len(step.ended), None
    for written in range(1, step.captions.shape[1]):
        if run is None and (written - 1) % LOOK_EVERY:  # one token of each number of rows is launched one by one
            run = captured(step)
        (run or step)()
        if written % LOOK_EVERY == 0:
            left = step.rows_left()
            if not left:
                break
            if left <= rows // 2 and rows > FEWEST_ROWS:
                step.keep_writing()
                rows, run = left, None
            if step.make_room(written + LOOK_EVERY):
                run = None
    else:
        step.write()
    longest = int(step.lengths.max())
    logprobs = step.logprobs[:, :longest]
    if not bool(logprobs.isfinite().all()):
        raise RuntimeError("the log-prob of a sampled token is not a number: the captioner's logits are not finite")
    return step.captions[:, :longest], logprobs


def captured(step: StaticStep) -> Callable[[], None]:
    """The step as a CUDA graph, or itself where there is none or it cannot be captured (which is said once)."""
    device, stream = step.ended.device, None
    if device.type != "cuda":
        return step
    try:
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(device)
        # On the captioner's device, which need not be the current one: elsewhere nothing would be captured, and what is
        # replayed is nothing. Other threads may use it meanwhile.
        with (
            torch.cuda.device(device),
            torch.cuda.graph(graph, stream=_side_stream(device), capture_error_mode="thread_local"),
        ):
            step()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if stream is not None:
            _leave_capture(stream)
        step.forget()
        say_without_graph(str(error).splitlines()[0])
        return step
    return graph.replay


@cache  # cuBLAS keeps a workspace for every stream that it was used on
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _leave_capture(stream: torch.cuda.Stream) -> None:
    """torch leaves an invalid capture on its side stream and, before 2.12, with a generator that draws nothing more."""
    with torch.cuda.device(stream.device):
        torch.cuda.set_stream(stream)
    generator = torch.cuda.default_generators[stream.device_index]
    generator.graphsafe_set_state(generator.clone_state())


def say_without_graph(reason: str) -> None:
    """Once for each reason: Python shows equal warnings of one place once."""
    rank_zero_warn(f"captions are sampled without a CUDA graph, many times slower: {reason}")
