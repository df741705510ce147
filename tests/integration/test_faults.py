"""Faults of the reasoner as a run meets them: a real ``fit``, a real HTTP client, a server that misbehaves on script.

One fit goes through all faults: in every other step the server misbehaves for every second prompt that it has not met
in that step, the first one included, whatever the captions say, in up to three ways in turn; in the steps between it is
well. Every test looks at what the run noted of its fault.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from racro_pl.reward import HttpReasoner, ReasonerPool, Scorer, UnscoredError
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.training.module import RacroModule
from tests.fakes.reasoner_server import FaultServer, bomb, by_caption
from tests.unit.training.conftest import adapter, fit, make_module

# One fit of many steps, some of which wait for a deadline: minutes on a machine with more to do.
pytestmark = pytest.mark.timeout(900)
CAPTIONER = Path("embedded:figure-captioner")
PATIENT_S = 100.0
"""For what happens: a busy machine may let a process wait for seconds at any point."""
ENDLESS = {"no http", "endless headers", "hang", "drip"}

FAULTS = {
    "refuse": "connection failed",
    # Those that cost the deadline stand together.
    "no http": "timeout",  # an SSH banner: the start of what never becomes a header
    "endless headers": "timeout",
    "hang": "timeout",
    "drip": "timeout",
    "429 3600": "HTTP 429",
    "429 1e9": "HTTP 429",
    "429 99999999999999999999": "HTTP 429",
    "429 Wed, 21 Oct 2099 07:28:00 GMT": "HTTP 429",
    "429 0": "HTTP 429",
    "429 -5": "HTTP 429",
    "429 soon": "HTTP 429",
    "drop": "connection failed",
    "cut": "connection failed",
    "huge headers": "connection failed",
    "500": "HTTP 500",
    "503": "HTTP 503",
    "400": "HTTP 400",
    "401": "HTTP 401",
    "404": "HTTP 404",
    "redirect": "HTTP 307",
    "garbage": "bad response",
    "empty": "bad response",
    "null": "bad response",
    "nested": "bad response",
    "long number": "bad response",
    "empty choices": "bad response",
    "null content": "no answer",
    "nan content": "bad response",
    "infinite message": "bad response",
    "huge": "bad response",
    "gzip": "bad response",
    "wrong model": "wrong model",
    "odd numbers": None,  # beside a good answer: no fault of the answer
}
"""What the server does, and as what it is counted."""
_NAMES = list(FAULTS)
BATCHES = [_NAMES[:1], *(_NAMES[at : at + 3] for at in range(1, len(_NAMES), 3))]
"""What it does in one step; a server that refuses does nothing else."""


def prompt_of(question_text: str, caption: str) -> str:
    return reasoner_messages(question_text, caption)[-1]["content"]


@dataclass
class Caption:
    """What became of one caption."""

    prompt: str
    empty: bool
    scored: bool
    reward: float
    reason: str | None


@dataclass
class Step:
    """What one step noted."""

    metrics: dict[str, float]
    captions: list[Caption]
    weights: dict[str, torch.Tensor]
    redirected: int
    """Requests that reached the server to which the first one had sent them."""
    hit: dict[str, str]
    """How the server misbehaved, by prompt."""


@dataclass
class Faults(Callback):
    """Makes the server misbehave in every other step, and notes what the step made of it."""

    server: FaultServer
    elsewhere: FaultServer
    steps: list[Step] = field(default_factory=list)
    batch: list[str] = field(default_factory=list)
    """In which ways it misbehaves in this step."""
    met: list[str] = field(default_factory=list)
    """This step's prompts in the order of their first request."""
    state_key = "faults"

    def script(self, chat: list[dict]) -> str:
        prompt = chat[-1]["content"]
        if prompt not in self.met:
            self.met.append(prompt)
        # Of one prompt always the same: a retry must not find the server well.
        return self.fault_of(prompt) or "ok"

    def fault_of(self, prompt: str) -> str | None:
        turn, rest = divmod(self.met.index(prompt), 2)
        return self.batch[turn % len(self.batch)] if self.batch and rest == 0 else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        self.batch = BATCHES[len(self.steps) // 2] if len(self.steps) % 2 == 0 else []
        set_limits(pl_module.scorer.reasoner, endless=not ENDLESS.isdisjoint(self.batch))
        if self.batch == ["refuse"]:
            self.server.go_away()
        self.met = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        if self.batch == ["refuse"]:
            self.server.come_back()
        captions = [
            Caption(prompt_of(rollout.question.text, text), not text.strip(), scored, reward, reason)
            for rollout, rewards in pl_module.last_step
            for text, scored, reward, reason in zip(
                rollout.texts, rewards.scored, rewards.total, rewards.reasons, strict=True
            )
        ]
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.met:
            hit = {prompt: fault for prompt in self.met if (fault := self.fault_of(prompt))}
        else:  # without a server every prompt fails, and none is met
            hit = dict.fromkeys((caption.prompt for caption in captions), "refuse")
        self.steps.append(Step(metrics, captions, adapter(pl_module), len(self.elsewhere.chats), hit))


def set_limits(reasoner: HttpReasoner, *, endless: bool) -> None:
    """Of the requests from now on: where some never end, those that are answered have to be by then."""
    session = reasoner._open()
    session._deadline_s, session.client._attempt_s = (6.0, 4.0) if endless else (PATIENT_S, PATIENT_S)


def fault_module(url: str) -> RacroModule:
    # Hardly learns: what the captioner writes in a step then does not depend on which captions a fault took before, and
    # no step has so few different captions that one of its faults meets none.
    module = make_module(CAPTIONER, learning_rate=1e-5)
    reasoner = HttpReasoner(url, attempts=2, backoff_s=0.05, max_tokens=8)
    module.scorer = Scorer(reasoner, cache="off", max_unscored_share=1.0)
    return module


def answers(chat: list[dict]) -> str:
    return by_caption(chat[-1]["content"])


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict[str, tuple[Step, Step]]:
    """Per fault, its step, which it may share, and the one after it."""
    bomb()  # packed beforehand: in the middle of a request it would take longer than the request has
    with FaultServer(answer=answers) as server, FaultServer(answer=answers) as elsewhere:
        server.elsewhere = f"{elsewhere.url}/v1"
        faults = Faults(server, elsewhere)
        server.script = faults.script
        module = fault_module(server.url)
        fit(module, tmp_path_factory.mktemp("fit"), steps=2 * len(BATCHES), callbacks=[faults])
    pairs = zip(faults.steps[::2], faults.steps[1::2], strict=True)
    return {fault: pair for batch, pair in zip(BATCHES, pairs, strict=True) for fault in batch}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_masks_its_captions_and_nothing_else(steps, fault):
    during, _ = steps[fault]
    assert any(during.hit.get(caption.prompt) == fault and not caption.empty for caption in during.captions)
    lost: Counter[str] = Counter()
    for caption in during.captions:
        kind = None if caption.empty else FAULTS.get(during.hit.get(caption.prompt, "ok"))
        assert caption.scored == (kind is None), caption
        assert (caption.reason is not None) == (kind is not None)
        if kind is not None:
            lost[kind] += 1
            assert caption.reason.startswith(f"{kind}: ")
        right = not caption.empty and by_caption(caption.prompt) == r"\boxed{red}"
        assert caption.reward == (0.0 if kind else float(right))
    assert during.metrics["reasoner/unscored"] == lost.total()
    assert during.metrics["reward/unscored_share"] == pytest.approx(lost.total() / len(during.captions))
    # Figures of earlier steps stay in Lightning's table: only this step's kinds are looked at.
    for kind, count in lost.items():
        assert during.metrics[f"reasoner/unscored/{kind}"] == count
    assert during.redirected == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_when_the_server_is_well_again_training_goes_on(steps, fault):
    during, after = steps[fault]
    assert all(caption.scored for caption in after.captions)
    assert after.metrics["reasoner/unscored"] == after.metrics["reward/unscored_share"] == 0
    assert any(not torch.equal(after.weights[name], during.weights[name]) for name in after.weights)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.weights.values())


class FromSecondStep(Callback):
    """The server is well in the first step, and misbehaves from then on."""

    def __init__(self, server: FaultServer, fault: str) -> None:
        self.server = server
        self.fault = fault

    def on_train_batch_start(self, trainer: Trainer, pl_module: RacroModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step == 1:
            self.server.script = lambda chat: self.fault
            set_limits(pl_module.scorer.reasoner, endless=self.fault in ENDLESS)


@pytest.mark.parametrize(
    ("fault", "counted", "advice"),
    [
        ("500", r"16x HTTP 500\. For example: HTTP 500: told to fail with 500 \(attempt 2\)", "look into the log"),
        ("hang", r"16x timeout\. For example: timeout: no complete answer within", "hangs .* raise deadline_s"),
        (
            "wrong model",
            r"16x wrong model\. For example: wrong model: 'another' answered; .* 'tiny'",
            "serve the model",
        ),
    ],
)
def test_above_the_limit_the_run_stops_says_why_and_goes_on_later(tmp_path, fault, counted, advice):
    with FaultServer(answer=answers) as server:
        module = fault_module(server.url)
        module.scorer.max_unscored_share = 0.5
        with pytest.raises(
            UnscoredError, match=rf"16 of 16 captions.*0\.5.*: {counted}.*What to do: .*{advice}"
        ) as stop:
            fit(module, tmp_path, steps=9, callbacks=[FromSecondStep(server, fault)])
        saved = tmp_path / "checkpoints/stopped-step=2.ckpt"
        assert str(saved) in str(stop.value)
        assert torch.load(saved, weights_only=True)["global_step"] == 2
        # Nothing was learnt from the second step: it has no reward.
        assert module.updates_done == 1
        server.script = ["ok"]
        resumed = fault_module(server.url)
        assert fit(resumed, tmp_path, steps=3, ckpt=str(saved)).global_step == 3
        assert resumed.updates_done == 2


class OutageOf(Callback):
    """A server fails in steps 2 and 3, and is back after them."""

    def __init__(self, server: FaultServer, fault: str) -> None:
        self.server = server
        self.fault = fault
        self.asked: list[int] = []
        self.unscored: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        failing = pl_module.scorer.reasoner._endpoints[0].reasoner
        if trainer.global_step == 1:
            self.server.script = lambda chat: self.fault
            failing._open().client._attempt_s = 2.0
        elif trainer.global_step == 3:
            self.server.script = ["ok"]
            failing._open().client._attempt_s = PATIENT_S
            end = time.monotonic() + PATIENT_S
            while pl_module.scorer.reasoner._endpoints[0].away:  # until a probe has found it well
                assert time.monotonic() < end
                time.sleep(0.05)

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        self.asked.append(len(self.server.chats))
        self.unscored.append(float(trainer.callback_metrics["reward/unscored_share"]))


@pytest.mark.parametrize("fault", ["500", "hang"])
def test_one_of_two_servers_fails_for_a_while_and_nothing_is_lost(tmp_path, fault):
    with FaultServer(answer=answers) as first, FaultServer(answer=answers) as second:
        module = fault_module(first.url)
        clients = [HttpReasoner(server.url, model="tiny", attempts=1, max_tokens=8) for server in (first, second)]
        module.scorer = Scorer(ReasonerPool(clients, probe_s=0.3), cache="off")
        outage = OutageOf(first, fault)
        fit(module, tmp_path, steps=5, callbacks=[outage])
        assert outage.unscored == [0.0] * 5
        served = outage.asked[0] - 1  # without the check's
        assert 0 < served < 16  # the first step was shared
        assert outage.asked[4] - outage.asked[3] > 0  # it is used again
        assert len(second.chats) > 16 * 2
