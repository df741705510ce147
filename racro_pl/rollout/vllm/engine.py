"""Captions sampled by a vLLM server: the frozen base over there, the adapter pushed after every update."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from racro_pl.policy.captioner import Captioner
from racro_pl.rollout.engine import EncodedQuestion, Placement, RolloutEngine, RunInfo
from racro_pl.rollout.vllm.adapter import AdapterPusher
from racro_pl.rollout.vllm.answer import Asked, Sampled, read_captions
from racro_pl.rollout.vllm.checks import CANARY_THRESHOLDS, check_gap, check_server, logprob_gap
from racro_pl.rollout.vllm.protocol import RolloutError, exact_messages, sampling_request
from racro_pl.rollout.vllm.server import (
    ServerSettings,
    Sleeper,
    announce_key,
    check_family,
    given_key,
    required_arguments,
    start_server,
)
from racro_pl.serving.calls import ServerCalls
from racro_pl.serving.chat_client import Fault
from racro_pl.serving.network import clean_url
from racro_pl.serving.vllm_process import VllmServer
from racro_pl.types import Rollout, at_least, positive, require_all

BYTES_PER_TOKEN = 1_000
"""Bound on a token's share of a response: its id, its text, its bytes and its log-prob, as JSON."""


class VllmEngine(RolloutEngine):
    """Sampling by a vLLM server that holds the frozen base and one adapter.

    Before sampling with new weights the adapter alone is written as a PEFT folder, loaded by the server under a new
    name, used, and the version before it unloaded; it is never merged into the base. Trainer and server share a file
    system. Every caption comes with the server's log-probs, and from a prompt whose token ids are the trainer's.

    The canary samples captions of a few fixed questions at the start, after the first update and after every
    ``canary_every``-th push, and compares the server's log-probs of them with the trainer's: an adapter that did not
    arrive, another base, another image or another temperature shows there, and the run stops.

    Args:
        group_size: captions per question (G), at least 2.
        max_new_tokens: caption length limit in tokens.
        temperature: sampling temperature.
        url: base URL of a running server, as ``http://127.0.0.1:8000/v1``; null to start one. It is sent the key in
            the environment variable ``VLLM_API_KEY``, where that is set.
        server: how to start one; exactly one of ``url`` and ``server`` is given.
        canary_every: pushes between two canaries.
        canary_questions: questions of a canary, ``group_size`` captions each.
        canary_threshold: mean absolute log-prob difference per token (nats) above which the run stops; null for
            ``CANARY_THRESHOLDS`` of the base's dtype. A base that is quantised on one side only differs by more, and
            needs a threshold of its own.
        sleep: the server sleeps while the trainer computes, and gives it the GPU's memory: for one card that both
            share. Sampling and learning then never overlap. One device only. Experimental: no published
            configuration or experiment uses it.
        concurrency: questions in flight at once.
        deadline_s: seconds from a question's first attempt until the run gives up, retries and waits included.
        attempt_s: seconds for one attempt.
        attempts: most attempts per question. Only timeouts, lost connections, 429 and 5xx are tried again.
    """

    def __init__(
        self,
        group_size: int = 4,
        max_new_tokens: int = 1024,
        temperature: float = 1.0,
        url: str | None = None,
        server: ServerSettings | None = None,
        canary_every: int = 10,
        canary_questions: int = 4,
        canary_threshold: float | None = None,
        sleep: bool = False,
        concurrency: int = 64,
        deadline_s: float = 900.0,
        attempt_s: float = 600.0,
        attempts: int = 4,
    ) -> None:
        super().__init__(group_size, max_new_tokens, temperature)
        require_all(
            "rollout",
            (
                (url is None) != (server is None),
                "give either the url of a running vLLM server, or server with how to start one",
            ),
            *at_least(1, canary_every=canary_every, canary_questions=canary_questions),
            *at_least(1, concurrency=concurrency, attempts=attempts),
            *positive(canary_threshold=canary_threshold, deadline_s=deadline_s, attempt_s=attempt_s),
        )
        self.url = None if url is None else clean_url(url)
        self.server_settings = server
        self.canary_every = canary_every
        self.canary_questions = canary_questions
        self.canary_threshold = canary_threshold
        self.sleep = sleep
        self.concurrency = concurrency
        self.deadline_s = deadline_s
        self.attempt_s = attempt_s
        self.attempts = attempts
        self._server: VllmServer | None = None
        self._calls: ServerCalls | None = None
        self._pusher: AdapterPusher
        self._sleeper: Sleeper | None = None
        self._threshold = 0.0
        self._served: tuple[int, str] | None = None
        """Version and name of the adapter that the server has."""
        self._pushes = 0
        self._probes: tuple[EncodedQuestion, ...] = ()
        self._metrics: dict[str, float] = {}
        self._waited = 0.0

    # ------------------------------------------------------------------ a run's beginning and end

    def open(self, run: RunInfo) -> None:
        if self._calls is not None:
            return
        check_family(run.policy)
        required_arguments(run.policy)  # refuses a policy without an adapter, for any server
        if self.sleep and run.ranks > 1:
            raise RolloutError(
                f"sleep: true is for one device; {run.ranks} share this server and would not sleep at once"
            )
        url, uds, key = self.url, None, given_key()
        if self.server_settings is not None:
            server = start_server(self.server_settings, run, self.sleep)
            self._server = server if run.rank == 0 else None
            url, uds, key = server.url, server.uds, server.api_key
        elif key is not None:
            announce_key(self.url or "")
        assert url is not None
        body_bytes = 1_000_000 + self.group_size * self.max_new_tokens * BYTES_PER_TOKEN
        self._calls = ServerCalls(
            url, self.concurrency, self.deadline_s, self.attempt_s, self.attempts, body_bytes, uds, key
        )
        self._pusher = AdapterPusher(self._calls, run.folder / "rollout_adapters", run.run_id, run.rank)
        self._served, self._pushes, self._probes = None, 0, ()
        self._threshold = self.canary_threshold or CANARY_THRESHOLDS[run.policy.dtype]
        check_server(self._calls, self.max_new_tokens)
        if self.sleep:
            self._sleeper = Sleeper(self._calls)
            self._sleeper.sleep()

    def close(self) -> None:
        if self._calls is not None:
            if self._sleeper is not None and self._server is None:
                with contextlib.suppress(RolloutError):  # gone already
                    self._sleeper.wake()
            self._sleeper = None
            # A server of one's own ends in a moment, with all that it has loaded.
            self._pusher.close(unload=self._server is None)
            self._calls.close()
            self._calls = None
        if self._server is not None:
            self._server.stop()
            self._server = None

    # ------------------------------------------------------------------ sampling

    def sample(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> Iterator[Rollout]:
        self._sync(captioner, questions, adapter_version)
        return self._and_rest(self._groups(captioner, questions, self.group_size, self.temperature))

    def caption_greedily(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> list[str]:
        self._sync(captioner, questions, adapter_version)
        groups = self._and_rest(self._groups(captioner, questions, 1, 0.0))
        return [rollout.texts[0] for rollout in groups]

    def _and_rest(self, groups: Iterator[Rollout]) -> Iterator[Rollout]:
        yield from groups
        if self._sleeper is not None:
            self._sleeper.sleep()

    @property
    def placement(self) -> Placement:
        return "same_device" if self.sleep else "server"

    @property
    def waiting_seconds(self) -> float:
        return self._waited

    def metrics(self) -> dict[str, float]:
        return dict(self._metrics)

    def _groups(
        self,
        captioner: Captioner,
        questions: Sequence[EncodedQuestion],
        captions: int,
        temperature: float,
    ) -> Iterator[Rollout]:
        """Send all questions at once; the iterator returned waits for their groups, in order."""
        calls, (version, name) = self._opened(), self._served or (0, "")
        banned = captioner.banned.nonzero()[:, 0].tolist()
        asked = Asked(
            model=name,
            captions=captions,
            max_new_tokens=self.max_new_tokens,
            vocabulary=len(captioner.banned),
            eos_ids=captioner.eos_ids,
            banned=frozenset(banned),
        )
        waiting: list[Future[Any]] = []
        for question, prompt in questions:
            request = sampling_request(
                exact_messages(question, prompt, captioner.encoder),
                model=name,
                captions=captions,
                max_new_tokens=self.max_new_tokens,
                temperature=temperature,
                banned=banned,
                eos_ids=sorted(captioner.eos_ids),
            )
            waiting.append(calls.post("chat/completions", request))

        def receive() -> Iterator[Rollout]:
            for encoded, future in zip(questions, waiting, strict=True):
                began = time.perf_counter()
                try:
                    answer = future.result()
                except Fault as fault:
                    raise RolloutError(
                        f"vLLM at {calls.where} sampled no captions for question {encoded[0].id} ({fault})"
                        f"{self._server_tail()}"
                    ) from None
                finally:
                    self._waited += time.perf_counter() - began
                sampled = read_captions(answer, encoded[1], asked, captioner.pad_id)
                yield _rollout(encoded, sampled, captioner, version)

        return receive()

    # ------------------------------------------------------------------ weights and canary

    def _sync(self, captioner: Captioner, questions: Sequence[EncodedQuestion], version: int) -> None:
        """Have the server, awake, serve the policy as it is now; every so often make sure that it does."""
        if self._sleeper is not None:
            self._sleeper.wake()
        if not questions or (self._served is not None and self._served[0] == version):
            return
        self._opened()
        started = time.perf_counter()
        self._served = (version, self._pusher.push(captioner, version))
        self._metrics["push_seconds"] = time.perf_counter() - started
        self._pushes += 1
        if self._pushes == 1:
            self._probes = tuple(questions[: self.canary_questions])
        # The second as well: a new adapter adds nothing yet, and a server that ignored it would pass the first.
        if (self._pushes - 1) % self.canary_every == 0 or self._pushes == 2:
            self._canary(captioner)

    def _canary(self, captioner: Captioner) -> None:
        rollouts = list(self._groups(captioner, self._probes, self.group_size, self.temperature))
        gap = logprob_gap(captioner, rollouts, self.temperature)
        self._metrics |= {
            "canary_gap": gap.mean, "canary_highest_gap": gap.highest, "canary_base_gap": gap.base_mean
        }  # fmt: skip
        check_gap(gap, self._threshold)

    def _opened(self) -> ServerCalls:
        if self._calls is None:
            raise RuntimeError("the rollout engine is not open")
        return self._calls

    def _server_tail(self) -> str:
        if self._server is None or self._server.poll() is None:
            return ""
        return f". The server has ended; the last lines of its log:\n{self._server.log_tail()}"


def _rollout(encoded: EncodedQuestion, sampled: Sampled, captioner: Captioner, version: int) -> Rollout:
    # Decoded here, from the ids: one way from tokens to text, for either engine.
    texts = captioner.encoder.decode(encoded[1], sampled.token_ids)
    return Rollout(
        question=encoded[0],
        prompt=encoded[1],
        token_ids=sampled.token_ids.to(captioner.device),
        mask=sampled.mask.to(captioner.device),
        sampler_logprobs=sampled.logprobs.to(captioner.device),
        texts=tuple(texts),
        truncated=sampled.truncated,
        adapter_version=version,
    )
