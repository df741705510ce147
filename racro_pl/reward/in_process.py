"""A reasoner that runs in this process: a transformers causal language model, batched.

Prompts only queue up; the first answer that is asked for runs the whole queue, on the thread that asks. So prompts
of many questions share batches. Each answer is drawn from a seed of its own, whatever else is in the batch.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from racro_pl.figure_world.models import resolve_model
from racro_pl.reward.reasoner import BusyClock, Reasoner, ReasonerError, Reply, UsageMeter
from racro_pl.types import Messages, require

if TYPE_CHECKING:
    from racro_pl.reward.local_model import LocalModel

REMEMBERED = 2**14
"""Replies of a greedy reasoner kept in memory, the latest."""


class _QueuedFuture(Future[Reply]):
    """Runs its reasoner's queue when it is read. ``concurrent.futures.wait`` does not: it would wait for ever."""

    def __init__(self, reasoner: InProcessReasoner) -> None:
        super().__init__()
        self._reasoner = reasoner

    def result(self, timeout: float | None = None) -> Reply:
        """The reply; computes it, with all others in the queue, when need be (``timeout`` does not bound that)."""
        if not self.done():
            self._reasoner.flush()
        return super().result(timeout)


class InProcessReasoner(Reasoner):
    """Runs a causal language model folder or hub id that has a chat template and safetensors weights."""

    def __init__(
        self,
        path: str,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 512,
        batch_size: int = 128,
        device: str = "auto",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        """
        Args:
            path: Model folder, hub id, or the name of an embedded model.
            temperature: Of its sampling; 0 is greedy, and an equal prompt is then answered from memory.
            top_p: Of its sampling.
            max_new_tokens: Longest answer, in tokens.
            batch_size: Prompts generated together.
            device: ``auto`` (this process's GPU when there is one), or a torch device.
            dtype: Precision of the weights.
        """
        require(bool(path), f"path={path!r}", "a model folder or name")
        require(0 <= temperature < math.inf, f"temperature={temperature}", "a finite number, 0 (greedy) or more")
        require(0 < top_p <= 1, f"top_p={top_p}", "a share above 0, at most 1")
        require(max_new_tokens >= 1, f"max_new_tokens={max_new_tokens}", "at least 1")
        require(batch_size >= 1, f"batch_size={batch_size}", "at least 1")
        require(dtype in ("float32", "bfloat16", "float16"), f"dtype={dtype!r}", "float32, bfloat16 or float16")
        self.path = path
        self.temperature = temperature
        self.top_p = top_p
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self._lock = threading.RLock()
        self._queue: list[tuple[Messages, int, _QueuedFuture]] = []
        self._known: dict[str, Reply] = {}
        self._model: LocalModel | None = None
        self._clock: BusyClock = BusyClock()
        self._meter: UsageMeter = UsageMeter()

    @property
    def identity(self) -> str:
        """Model path, state of its weight files, precision and sampling settings."""
        names = ("path", "dtype", "temperature", "top_p", "max_new_tokens")
        settings = {name: getattr(self, name) for name in names}
        return json.dumps(settings | {"weights": self._weight_files}, sort_keys=True)

    @cached_property
    def _weight_files(self) -> list[tuple[str, int, int]]:
        """Name, size and time of change: rebuilt weights under an old path must not get the old answers."""
        files = [(file.name, file.stat()) for file in Path(resolve_model(self.path)).glob("*.safetensors")]
        return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)

    @property
    def deterministic(self) -> bool:
        """Whether decoding is greedy."""
        return self.temperature == 0

    def check(self) -> None:
        """Load the model.

        Raises:
            ReasonerError: it cannot be loaded, has no chat template, or its longest answer would fill its context.
        """
        with self._lock:
            context = self._load().context
        if context is not None and self.max_new_tokens >= context:
            raise ReasonerError(
                f"the reasoner {self.path!r} has a context of {context} tokens: max_new_tokens={self.max_new_tokens} "
                "leaves no room for the prompt; lower it (for racro-pl test: sampling.max_tokens)"
            )

    def submit(self, prompts: Sequence[Messages]) -> list[Future[Reply]]:
        """Queue prompts. Reading any of the futures generates for the whole queue, on the reading thread.

        Sampled answers follow from the state of torch's global random generator at this call.
        """
        import torch

        seeds = [0] * len(prompts) if self.deterministic else torch.randint(2**62, (len(prompts),)).tolist()
        return self.submit_seeded(prompts, seeds)

    def submit_seeded(self, prompts: Sequence[Messages], seeds: Sequence[int]) -> list[Future[Reply]]:
        """Queue prompts, each with the seed of its answer."""
        queued = [(messages, seed, _QueuedFuture(self)) for messages, seed in zip(prompts, seeds, strict=True)]
        with self._lock:
            self._queue.extend(queued)
        return [future for _, _, future in queued]

    def flush(self) -> None:
        """Generate for everything in the queue; an exception goes to all of its futures.

        Other threads that read a future meanwhile wait here until theirs is ready.
        """
        with self._lock:
            queue, self._queue = self._queue, []
            if not queue:
                return
            self._clock.start()
            try:
                replies = self._answer([messages for messages, _, _ in queue], [seed for _, seed, _ in queue])
            except BaseException as error:
                for _, _, future in queue:
                    future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, _, future), reply in zip(queue, replies, strict=True):
                    future.set_result(reply)
            finally:
                self._clock.stop()

    def close(self) -> None:
        """Drop the model; what is still queued ends with an error. A later use loads it again."""
        with self._lock:
            queue, self._queue = self._queue, []
            for _, _, future in queue:
                future.set_result(Reply(error="closed: the reasoner was closed before it answered"))
            self._model = None
            self._known.clear()

    def _load(self) -> LocalModel:
        from racro_pl.reward.local_model import LocalModel

        if self._model is None:
            sampling = (self.temperature, self.top_p, self.max_new_tokens)
            self._model = LocalModel(self.path, self.device, self.dtype, *sampling)
        return self._model

    def _answer(self, prompts: Sequence[Messages], seeds: Sequence[int]) -> list[Reply]:
        """Replies in the prompts' order; a greedy reasoner computes equal prompts once."""
        if not self.deterministic:
            return self._compute(prompts, seeds)
        keys = [json.dumps(messages) for messages in prompts]
        new = {key: messages for key, messages in zip(keys, prompts, strict=True) if key not in self._known}
        self._known.update(zip(new, self._compute(list(new.values()), [0] * len(new)), strict=True))
        replies = [self._known[key] for key in keys]
        for oldest in list(islice(self._known, max(0, len(self._known) - REMEMBERED))):
            del self._known[oldest]
        return replies

    def _compute(self, prompts: Sequence[Messages], seeds: Sequence[int]) -> list[Reply]:
        model = self._load()
        rows = model.tokenize(prompts)
        replies: dict[int, Reply] = {}
        fitting = []
        # Alike lengths together, so that little is padding.
        for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
            if model.context is not None and len(rows[index]) + self.max_new_tokens > model.context:
                detail = f"{len(rows[index])} tokens and max_new_tokens={self.max_new_tokens} exceed {model.context}"
                replies[index] = Reply(error=f"prompt too long: {detail}")
            else:
                fitting.append(index)
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            drawn = None if self.deterministic else [seeds[index] for index in batch]
            generated = model.generate([rows[index] for index in batch], drawn, self._meter)
            replies.update(zip(batch, generated, strict=True))
        return [replies[index] for index in range(len(rows))]
