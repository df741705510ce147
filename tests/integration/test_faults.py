"""Faults of the reasoner as a run meets them: a real ``fit``, a real HTTP client, a server that misbehaves on script.

One fit goes through all faults: in every other step the server misbehaves for about a third of the captions (which
ones follows from their words), in the steps between it is well. Every test looks at what the run noted of its fault.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from racro_pl.reward import HttpReasoner, Scorer, UnscoredError
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.training.module import RacroModule
from tests.fakes.reasoner_server import FaultServer, by_caption
from tests.unit.training.conftest import ListData, adapter, fit, make_module, questions

CAPTIONER = Path("embedded:figure-captioner")
DEADLINE_S = 1.0
SLACK_S = 6.0
"""For sampling and learning, on a busy machine."""

FAULTS = {
    "refuse": "connection failed",
    "drop": "connection failed",
    "cut": "connection failed",
    "no http": "timeout",  # an SSH banner: the start of what never becomes a header
    "huge headers": "connection failed",
    "endless headers": "timeout",
    "hang": "timeout",
    "drip": "timeout",
    "429 0": "HTTP 429",
    "429 3600": "HTTP 429",
    "429 1e9": "HTTP 429",
    "429 99999999999999999999": "HTTP 429",
    "429 -5": "HTTP 429",
    "429 Wed, 21 Oct 2099 07:28:00 GMT": "HTTP 429",
    "429 soon": "HTTP 429",
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
    "null content": "bad response",
    "nan content": "bad response",
    "infinite message": "bad response",
    "huge": "bad response",
    "gzip": "bad response",
    "wrong model": "wrong model",
    "odd numbers": None,  # beside a good answer: no fault of the answer
}
"""What the server does, and as what it is counted."""


def prompt_of(question_text: str, caption: str) -> str:
    return reasoner_messages(question_text, caption)[-1]["content"]


def is_hit(prompt: str) -> bool:
    return zlib.crc32(prompt[::-1].encode()) % 3 == 0


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

    seconds: float
    figures: dict[str, float]
    captions: list[Caption]
    weights: dict[str, torch.Tensor]
    redirected: int
    """Requests that reached the server to which the first one had sent them."""


@dataclass
class Faults(Callback):
    """Makes the server misbehave in every other step, and notes what the step made of it."""

    server: FaultServer
    elsewhere: FaultServer
    steps: list[Step] = field(default_factory=list)
    mode: str = "ok"
    state_key = "faults"

    def script(self, chat: list[dict]) -> str:
        return self.mode if is_hit(chat[-1]["content"]) else "ok"

    def on_train_batch_start(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        fault = list(FAULTS)[len(self.steps) // 2] if len(self.steps) % 2 == 0 else "ok"
        if fault == "refuse":
            self.server.go_away()
        else:
            self.mode = fault
        self.started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        seconds = time.monotonic() - self.started
        if len(self.steps) == list(FAULTS).index("refuse") * 2:
            self.server.come_back()
        captions = [
            Caption(prompt_of(rollout.question.text, text), not text.strip(), scored, reward, reason)
            for rollout, rewards in pl_module.last_step
            for text, scored, reward, reason in zip(
                rollout.texts, rewards.scored, rewards.total, rewards.reasons, strict=True
            )
        ]
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.steps.append(Step(seconds, figures, captions, adapter(pl_module), len(self.elsewhere.chats)))


def fault_module(url: str, **reasoner: object) -> RacroModule:
    module = make_module(CAPTIONER)
    settings = {"deadline_s": DEADLINE_S, "attempt_s": 0.7, "attempts": 2, "backoff_s": 0.05, "max_tokens": 8}
    module.scorer = Scorer(HttpReasoner(url, **(settings | reasoner)), cache="off", max_unscored_share=1.0)
    return module


def answers(chat: list[dict]) -> str:
    return by_caption(chat[-1]["content"])


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict[str, tuple[Step, Step]]:
    """Per fault, its step and the one behind it."""
    with FaultServer(answer=answers) as server, FaultServer(answer=answers) as elsewhere:
        server.elsewhere = f"{elsewhere.url}/v1"
        faults = Faults(server, elsewhere)
        server.script = faults.script
        module = fault_module(server.url)
        fit(module, tmp_path_factory.mktemp("fit"), steps=2 * len(FAULTS), callbacks=[faults])
    return dict(zip(FAULTS, zip(faults.steps[::2], faults.steps[1::2], strict=True), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_masks_its_captions_and_nothing_else(steps, fault):
    kind, (during, after) = FAULTS[fault], steps[fault]
    lost = 0
    for caption in during.captions:
        hit = kind is not None and not caption.empty and (fault == "refuse" or is_hit(caption.prompt))
        lost += hit
        assert caption.scored != hit, caption
        assert (caption.reason is not None) == hit
        if hit:
            assert caption.reason.startswith(f"{kind}: ")
        right = not caption.empty and by_caption(caption.prompt) == r"\boxed{red}"
        assert caption.reward == (0.0 if hit else float(right))
    assert lost > 0 or kind is None
    assert during.figures["reasoner/unscored"] == lost
    assert during.figures["reward/unscored_share"] == pytest.approx(lost / len(during.captions))
    counted = {name: n for name, n in during.figures.items() if name.startswith("reasoner/unscored/") and n}
    # Figures of earlier steps stay in Lightning's table: only this step's kind is looked at.
    assert counted[f"reasoner/unscored/{kind}"] == lost if kind else True
    assert during.seconds < DEADLINE_S + SLACK_S
    assert during.redirected == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_when_the_server_is_well_again_training_goes_on(steps, fault):
    during, after = steps[fault]
    assert all(caption.scored for caption in after.captions)
    assert after.figures["reasoner/unscored"] == after.figures["reward/unscored_share"] == 0
    assert any(not torch.equal(after.weights[name], during.weights[name]) for name in after.weights)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.weights.values())
