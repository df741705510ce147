"""A reasoner that runs in this process: a transformers causal language model, batched.

Prompts only queue up; the first answer that is asked for runs the whole queue, on the thread that asks. So prompts
of many questions share batches. Each answer is drawn from a seed of its own, whatever else is in the batch.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from racro_pl.figure_world.models import resolve_model
from racro_pl.pretrained.chat_template import ChatTemplate, chat_template_of, check_template, without_system
from racro_pl.pretrained.folder import fetch_folder, first_line
from racro_pl.pretrained.sandbox import RefusalError
from racro_pl.pretrained.weights import check_vocabulary, end_token_ids, load_whole
from racro_pl.reward.reasoner import BusyClock, Reasoner, ReasonerError, Reply, UsageMeter
from racro_pl.terminal import get_logger
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.text.thoughts import PROMPT_END_TOKENS, mark_opening
from racro_pl.types import Messages, RacroError, require

if TYPE_CHECKING:
    import torch

log = get_logger(__name__)


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
            temperature: Of its sampling; 0 is greedy, and equal prompts are then computed, and counted, once.
            top_p: Of its sampling.
            max_new_tokens: Longest answer, in tokens.
            batch_size: Prompts generated together.
            device: ``auto`` (this process's GPU when there is one), or a torch device.
            dtype: Precision of the weights.
        """
        require(bool(path), f"path={path!r}", "a model folder or name")
        require(temperature >= 0, f"temperature={temperature}", "0 (greedy) or more")
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
        self._model: Any = None
        self._tokenizer: Any = None
        self._template: Any = None
        self._folds_system = False
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
            self._load()
            context = self._context
        if context is not None and self.max_new_tokens >= context:
            raise ReasonerError(
                f"the reasoner {self.path!r} has a context of {context} tokens: max_new_tokens={self.max_new_tokens} "
                "leaves no room for the prompt; lower it (for racro-pl test: sampling.max_tokens)"
            )

    @property
    def _context(self) -> int | None:
        return getattr(self._model.config, "max_position_embeddings", None)

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
                self._load()
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
            self._model = self._tokenizer = None

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        what, folder = f"the reasoner {self.path!r}", resolve_model(self.path)
        try:
            tokenizer = self._load_tokenizer(AutoTokenizer, folder, what)
            template = chat_template_of(tokenizer, tokenizer, what)
            self._folds_system = self._find_system_role(template)
            model = load_whole(AutoModelForCausalLM, folder, what, dtype=getattr(torch, self.dtype))
            check_vocabulary(model, tokenizer, what)
            stop = end_token_ids(model.generation_config, tokenizer, what)
        except RacroError as error:
            raise ReasonerError(str(error)) from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(stop))
        device = self.device
        if device == "auto":
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        # The folder's own sampling settings would fill every gap in ours: keep of them only where to stop.
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(stop),
            pad_token_id=tokenizer.pad_token_id,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,  # sampling is a logits processor here, which leaves one token to choose from
        )
        self._tokenizer, self._template = tokenizer, template
        self._model = model.requires_grad_(False).eval().to(torch.device(device))

    def _load_tokenizer(self, auto_class: Any, path: str, what: str) -> Any:
        folder = fetch_folder(path, what)
        try:
            return auto_class.from_pretrained(folder, padding_side="left", trust_remote_code=False)
        except Exception as error:  # a stranger's files can be wrong in any way
            raise RacroError(f"{what}: cannot load a tokenizer ({first_line(error)})") from error

    def _find_system_role(self, template: ChatTemplate) -> bool:
        """Whether the system text has to go into the user's turn, because the template has no role for it.

        Raises:
            RacroError: the template does not pass on the user's text, or does not end.
        """
        messages = reasoner_messages("How many?", "Two cats.")
        texts = [message["content"] for message in messages]
        try:
            dropped = check_template(template, messages, texts)
        except RefusalError:
            dropped = texts
        if not dropped:
            return False
        folded = without_system(messages)
        still = check_template(template, folded, texts)
        if still:
            raise RacroError(f"{template.what}: its chat template leaves out {still[0][:60]!r} of what it is sent")
        log.warning("%s: its chat template has no system role; the system text begins the user's turn", template.what)
        return True

    def _answer(self, prompts: Sequence[Messages], seeds: Sequence[int]) -> list[Reply]:
        chats = [without_system(messages) if self._folds_system else messages for messages in prompts]
        texts = [self._template.render(messages) for messages in chats]
        # The template writes its own special tokens.
        ids = [tuple(row) for row in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]
        # Equal prompts of a greedy reasoner are one job.
        names: Sequence[Hashable] = ids if self.deterministic else range(len(ids))
        jobs = {name: (row, seed) for name, row, seed in zip(names, ids, seeds, strict=True)}
        replies: dict[Hashable, Reply] = {}
        context = self._context
        fitting = []
        # Alike lengths together, so that little is padding.
        for name, (row, _) in sorted(jobs.items(), key=lambda job: len(job[1][0])):
            if context is not None and len(row) + self.max_new_tokens > context:
                detail = f"{len(row)} tokens and max_new_tokens={self.max_new_tokens} exceed {context}"
                replies[name] = Reply(error=f"prompt too long: {detail}")
            else:
                fitting.append(name)
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            rows, drawn = zip(*(jobs[name] for name in batch), strict=True)
            replies.update(zip(batch, self._generate(rows, drawn), strict=True))
        return [replies[name] for name in names]

    def _generate(self, rows: Sequence[tuple[int, ...]], seeds: Sequence[int]) -> list[Reply]:
        import torch

        from racro_pl.reward.seeded_sampling import sampler

        padded = self._tokenizer.pad({"input_ids": [list(row) for row in rows]}, return_tensors="pt")
        inputs: dict[str, torch.Tensor] = {
            name: padded[name].to(self._model.device) for name in ("input_ids", "attention_mask")
        }
        with torch.no_grad():
            output = self._model.generate(
                **inputs,
                logits_processor=None
                if self.deterministic
                else sampler(seeds, self.temperature, self.top_p, self.max_new_tokens),
            )
        answers = output[:, inputs["input_ids"].shape[1] :]
        stops = self._model.generation_config.eos_token_id
        ended = torch.isin(answers, torch.tensor(stops, device=answers.device)).int()
        # Up to and including the first end token; all of an answer that has none, which the length limit then cut.
        lengths = torch.where(ended.any(1), ended.argmax(1) + 1, answers.shape[1]).tolist()
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        replies = []
        for row, text, length, whole in zip(rows, texts, lengths, ended.any(1).tolist(), strict=True):
            self._meter.add((len(row), length))
            # A template may have opened the thought already: then its tag is in the prompt.
            marked = mark_opening(text, self._tokenizer.decode(row[-PROMPT_END_TOKENS:]))
            replies.append(Reply(text=marked, truncated=not whole).visible())
        return replies
