"""Who waits for whom in a step: order of learning, work done while waiting, and the seconds of waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from racro_pl.reward.reasoner import Reply
from racro_pl.rollout import TransformersEngine
from racro_pl.training import module as module_file
from racro_pl.training.rollouts import micro_batches, part_lengths
from racro_pl.types import Messages
from tests.fakes.reasoners import ScriptedReasoner
from tests.unit.training.conftest import adapter, by_caption, fit, make_module


class LateReasoner(ScriptedReasoner):
    """Answers when the last question of the step is asked: that one first, then backwards, ``delay_s`` apart.

    Args:
        delay_s: 0 answers before the question has been submitted.
        waits: and not before this is set.
    """

    def __init__(self, delay_s: float, waits: threading.Event | None = None, questions: int = 4) -> None:
        super().__init__(by_caption)
        self.delay_s = delay_s
        self.waits = waits
        self.questions = questions
        self.open: list[tuple[list[Future[Reply]], list[Reply]]] = []
        self.order: list[int] = []

    def submit(self, prompts: Sequence[Messages]) -> list[Future[Reply]]:
        replies = [future.result() for future in super().submit(prompts)]
        futures: list[Future[Reply]] = [Future() for _ in replies]
        self.open.append((futures, replies))
        if len(self.open) == self.questions:
            thread = threading.Thread(target=self._answer, args=(self.open,))
            thread.start()
            if self.delay_s == 0:
                thread.join()
            self.open = []
        return futures

    def _answer(self, asked: list[tuple[list[Future[Reply]], list[Reply]]]) -> None:
        if self.waits is not None:
            self.waits.wait()
        for place, (futures, replies) in reversed([*enumerate(asked)]):
            time.sleep(self.delay_s)
            self.order.append(place)
            for future, reply in zip(futures, replies, strict=True):
                future.set_result(reply)


def test_parts_and_micro_batches_keep_the_order():
    assert part_lengths(5, 2) == [3, 2]
    assert part_lengths(1, 3) == [1, 0, 0]
    found = list(micro_batches(iter("abcdefg"), 7, 2, 3))  # type: ignore[arg-type]
    assert [(batch.groups, batch.update) for batch in found] == [(["a", "b", "c", "d"][:3], 0), (["d"], 0),
                                                              (["e", "f", "g"], 1)]  # fmt: skip
    # Fewer than expected: nothing is invented, and no micro-batch is empty.
    short = list(micro_batches(iter("abc"), 7, 2, 3))  # type: ignore[arg-type]
    assert [(batch.groups, batch.update) for batch in short] == [(["a", "b", "c"], 0)]


def test_the_order_in_which_rewards_arrive_changes_nothing(folder, tmp_path):
    results = []
    late = LateReasoner(0.05)
    for reasoner in (ScriptedReasoner(by_caption), late):
        module = make_module(folder, micro_batch_size=4)
        module.scorer.reasoner = reasoner
        fit(module, tmp_path, steps=2)
        results.append((adapter(module), [rollout.question.id for rollout, _ in module.last_step]))
    assert late.order == [3, 2, 1, 0] * 2
    assert results[0][1] == results[1][1]
    for name, tensor in results[0][0].items():
        assert torch.equal(tensor, results[1][0][name])


def test_waiting_is_logged_as_idle_seconds(folder, tmp_path):
    found = []
    for delay_s in (0.0, 0.5):
        module, waits = make_module(folder), threading.Event()
        module.scorer.reasoner = LateReasoner(delay_s, waits if delay_s else None)
        wait = module._wait_for_rewards
        module._wait_for_rewards = lambda *args, wait=wait, waits=waits: waits.set() or wait(*args)  # type: ignore
        # The first question's answer comes two seconds after the wait for it has begun.
        found.append(fit(module, tmp_path, steps=1).callback_metrics)
    at_once, late = found
    assert 0.5 < late["seconds/idle"] <= late["seconds/step"]
    assert at_once["seconds/idle"] < late["seconds/idle"] / 2
    assert late["seconds/idle"] == late["seconds/reason"]  # this engine is never waited for


class OnAServer(TransformersEngine):
    """In this process as ever, but said to be a server."""

    placement = "server"  # type: ignore[assignment]
    log: list[str]

    def sample(self, *args: Any) -> Iterator[Any]:
        for rollout in super().sample(*args):
            self.log.append("captions")
            yield rollout


@pytest.mark.parametrize(
    ("engine", "order"),
    [
        (TransformersEngine, ["captions"] * 4 + ["log-probs"] * 4),
        (OnAServer, ["captions", "log-probs"] * 4),
    ],
)
def test_log_probs_are_taken_while_others_sample(folder, tmp_path, monkeypatch, engine, order):
    """In this process all captions go to the reasoner first; with another engine there is time in between."""
    log: list[str] = []
    module = make_module(folder, micro_batch_size=4)
    if engine is OnAServer:
        module.engine = OnAServer(group_size=4, max_new_tokens=6, questions_per_batch=3)
        module.engine.log = log
    else:
        submit = module.scorer.submit
        module.scorer.submit = lambda *args: log.append("captions") or submit(*args)  # type: ignore[method-assign]
    logprobs = module_file.reward_free_logprobs
    monkeypatch.setattr(
        module_file,
        "reward_free_logprobs",
        lambda *args, **options: log.append("log-probs") or logprobs(*args, **options),
    )
    fit(module, tmp_path, steps=1)
    assert log == order
