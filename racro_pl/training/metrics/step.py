"""What one step reports: sums that add up over micro-batches and ranks, and seconds per phase."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from racro_pl.losses import Importance, same_rewards
from racro_pl.losses.importance import effective_sample_share
from racro_pl.text.thoughts import is_only_thoughts
from racro_pl.types import Rewards, Role, Rollout

PHASES = ("sample", "reason", "logprobs", "update")
"""Sampling captions; waiting for rewards; reference and old log-probs; loss, backward and optimizer."""
TOKEN_SUMS = ("kl", "approximate_kl", "clip_share", "dual_clip_share", "entropy")


class StepMetrics:
    """Collects one step's metrics on one rank. A new one is made for every step.

    Args:
        roles: what the step's questions are asked for. Sums are the first one's, but for :meth:`of` the others.
    """

    def __init__(self, roles: Sequence[Role] = ("caption",)) -> None:
        self._first = roles[0]
        self._others = {role: StepMetrics((role,)) for role in roles[1:]}
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._captions_awaited = 0.0
        self._started = time.perf_counter()
        self._sums: dict[str, float] = defaultdict(float)
        self._maxima: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase; GPU work is waited for, so that it counts where it belongs."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_initialized():  # a run on the CPU must not begin to use a card that is there
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start

    def of(self, role: Role) -> StepMetrics:
        """The sums of one role's texts; phases count in the step's own."""
        return self if role == self._first else self._others[role]

    def idle(self, seconds: float) -> None:
        """Add seconds in which this process only waited for captions; waiting for rewards is a phase of its own."""
        self._captions_awaited += seconds

    def add(self, **sums: float) -> None:
        """Add to sums that are later reduced over ranks."""
        for name, value in sums.items():
            self._sums[name] += float(value)

    def highest(self, **values: float) -> None:
        """Keep the highest value of a figure over updates and ranks."""
        for name, value in values.items():
            self._maxima[name] = max(self._maxima.get(name, value), value)

    def add_importance(self, importance: Importance) -> None:
        """Count a micro-batch's importance weights, and keep the largest ratio."""
        self.add(**{f"importance/{name}": value for name, value in importance.sums.items()})
        self.highest(ratio=importance.max_ratio)

    def add_groups(self, groups: Iterable[tuple[Rollout, Rewards]]) -> None:
        """Count the step's captions, rewards, groups without signal and captions without a score."""
        for rollout, reward in groups:
            scores = [total for total, scored in zip(reward.total, reward.scored, strict=True) if scored]
            self.of(rollout.role).add(
                captions=len(rollout.texts),
                caption_tokens=float(rollout.mask.sum()),
                truncated=sum(rollout.truncated),
                only_thoughts=sum(is_only_thoughts(text) for text in rollout.texts),
                scored=len(scores),
                reward=sum(scores),
                reward_squared=sum(score * score for score in scores),
                groups=1,
                flat_groups=same_rewards(scores),
            )

    def reduced(self, all_reduce: Callable[[Tensor, str], Tensor]) -> dict[str, float]:
        """The step's metrics by their logged names, over all ranks.

        Args:
            all_reduce: ``(tensor, "sum" | "max") -> tensor``; called exactly twice for each role, whatever happened in
                the step.
        """
        others = {f"{role}s/{name}": value for role, metrics in self._others.items()
                  for name, value in _without_the_steps(metrics.reduced(all_reduce)).items()}  # fmt: skip
        names = [*_SUMMED, *_IMPORTANCE_SUMS, *(f"sum/{name}" for name in TOKEN_SUMS)]
        totals = torch.tensor([self._sums[name] for name in names], dtype=torch.float64)
        sums = dict(zip(names, all_reduce(totals, "sum"), strict=True))
        seconds = time.perf_counter() - self._started
        highest = [self._maxima.get(name, 0.0) for name in ("grad_norm", "ratio")]
        idle = self.seconds["reason"] + self._captions_awaited
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else peak_process_gib()
        highest += [seconds, idle, peak, *(self.seconds[n] for n in PHASES)]
        reduced = all_reduce(torch.tensor(highest, dtype=torch.float64), "max").tolist()
        grad_norm, ratio, seconds, idle, memory, *phases = reduced

        def mean(name: str, over: str) -> float:
            return float(sums[name] / max(float(sums[over]), 1.0))

        # Only another engine's captions have such weights.
        importance = _importance_metrics(sums, ratio) if sums["importance/count"] else {}
        # A step may have no captions: the rollout server is lost, or they are learnt from one step later. No score is
        # not a zero score.
        reward = mean("reward", "scored") if sums["scored"] else float("nan")
        variance = max(mean("reward_squared", "scored") - reward**2, 0.0) if sums["scored"] else float("nan")
        return {
            "reward/mean": reward,
            "reward/std": variance**0.5,
            "reward/zero_variance_share": mean("flat_groups", "groups"),
            "reward/unscored_share": 1.0 - mean("scored", "captions") if sums["captions"] else 0.0,
            "caption/tokens": mean("caption_tokens", "captions"),
            "caption/truncated_share": mean("truncated", "captions"),
            "caption/only_thoughts_share": mean("only_thoughts", "captions"),
            **{f"questions/{name}": float(sums[name]) for name in _QUESTIONS},
            "policy/loss": mean("loss", "divisor"),
            **{f"policy/{name}": mean(f"sum/{name}", "forwarded_tokens") for name in TOKEN_SUMS},
            "policy/skipped_captions": float(sums["skipped"]),
            **importance,
            "policy/grad_norm": grad_norm,
            "policy/skipped_updates": float(sums["skipped_updates"]),
            **{f"seconds/{name}": value for name, value in zip(PHASES, phases, strict=True)},
            # Nothing to compute: the longest that a rank waited for another engine's captions, and for rewards.
            "seconds/idle": idle,
            "seconds/step": seconds,
            "speed/captions_per_second": float(sums["captions"]) / max(seconds, 1e-9),
            "memory/peak_gib": memory,
            **others,
        }


_QUESTIONS = ("dropped", "unsampled", "refilled", "replaced")
_SUMMED = (
    "captions", "caption_tokens", "truncated", "only_thoughts", "scored", "reward", "reward_squared", "groups",
    "flat_groups", *_QUESTIONS, "loss", "divisor", "forwarded_tokens", "skipped", "skipped_updates",
)  # fmt: skip


_IMPORTANCE_SUMS = tuple(
    f"importance/{name}" for name in ("count", "ratio", "capped", "weight", "weight_squared", "tokens", "gap")
)


_OF_THE_STEP = ("questions/", "seconds/", "speed/", "memory/", "policy/grad_norm", "policy/skipped_updates")


def _without_the_steps(metrics: Mapping[str, float]) -> dict[str, float]:
    """What is told of another role's texts: without what the step has once. ``caption/tokens`` becomes ``tokens``."""
    return {
        name.removeprefix("caption/").removeprefix("policy/").replace("skipped_captions", "skipped"): value
        for name, value in metrics.items()
        if not name.startswith(_OF_THE_STEP)
    }


def _importance_metrics(sums: Mapping[str, Tensor], max_ratio: float) -> dict[str, float]:
    """How far the sampler was from the policy, over all ranks (see ``losses/importance.py``)."""
    count, ratio, capped, weight, squared, tokens, gap = (float(sums[name]) for name in _IMPORTANCE_SUMS)
    return {
        "importance/mean_ratio": ratio / count,
        "importance/max_ratio": max_ratio,
        "importance/capped_share": capped / count,
        "importance/effective_sample_share": effective_sample_share(weight, squared, count),
        "importance/logprob_gap": gap / tokens,
    }


def peak_process_gib() -> float:
    """Peak of the process's main memory (GiB)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
