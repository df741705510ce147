"""What an evaluation is asked to do: the schema of ``racro-pl test``, and the short forms that its lists take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from racro_pl.data.benchmarks.loading import BenchmarkSettings, named_path, parse_benchmark, refuse_doubles
from racro_pl.evaluation.outcomes import Mode
from racro_pl.reward import HttpReasoner, InProcessReasoner, Reasoner
from racro_pl.types import RacroError, at_least, require, require_all

RuleName = Literal["strict", "vlmevalkit", "official"]
_Entry = TypeVar("_Entry")


@dataclass
class CaptionerSettings:
    """One captioner; as text ``PATH`` or ``NAME=PATH``."""

    path: str
    """A run folder of ``fit`` (its newest version with a result), a PEFT folder, a model folder or hub id, an
    ``embedded:`` name, or the URL of an OpenAI-compatible server that serves the model."""
    name: str = ""
    """In tables. Default: from the path."""
    model: str | None = None
    """Only with a URL: the served name, of an adapter for instance. Default: the only model served."""
    quantization: Literal["none", "nf4"] | None = None
    """Default: as the run that trained it; else none."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the base weights. Default: as the run that trained it; else float32 on a CPU, bfloat16 on a GPU."""
    min_pixels: int | None = None
    """Smaller images are scaled up. Default: as the run that trained it; else the reference's 3,136."""
    max_pixels: int | None = None
    """Larger images are scaled down. Default: as the run that trained it; else the reference's 12,845,056."""
    thinking: bool | None = None
    """As ``policy.thinking`` of ``fit``. Default: as the run that trained it. A server has its own switch."""
    max_new_tokens: int = 8192
    """Longest caption or tentative answer, in tokens (the reference's value)."""
    batch_size: int = 8
    """Prompts generated together; with a URL, requests in flight."""


@dataclass
class ReasonerSettings:
    """One reasoner; as text ``URL``, ``PATH`` or ``NAME=URL|PATH``, which then samples as ``sampling`` says."""

    reasoner: Reasoner
    """Its client, with its own sampling settings."""
    name: str = ""
    """In tables. Default: from its model's name."""


@dataclass
class SamplingSettings:
    """How reasoners given as URL or path sample: the paper's inference settings."""

    temperature: float = 0.6
    """0 is greedy."""
    top_p: float = 0.95
    """Share of probability that is sampled from."""
    max_tokens: int = 8192
    """Longest answer, thoughts included; the server's context must hold prompt and answer."""


@dataclass
class EvaluationSettings:
    """Which captioners, through which reasoners, on which benchmarks, scored how."""

    benchmarks: str | list[str | BenchmarkSettings]
    """Names, ``NAME=PATH`` or ``PATH.jsonl`` (own questions), with commas between them, or a list."""
    captioners: str | list[str | CaptionerSettings]
    """Paths or ``NAME=PATH``, with commas between them, or a list. The first is what the others are compared with."""
    reasoners: str | list[str | ReasonerSettings] = field(default_factory=list)
    """URLs or paths, with commas between them, or a list: all of them read the same captions."""
    modes: str | list[Mode] = field(default_factory=lambda: list(get_args(Mode)))
    """With commas between them, or a list. ``direct``: the captioner's own answer. ``caption``: the reasoner reads the
    caption. ``caption+tentative``: it reads both, as in the paper's table."""
    samples: int = 1
    """Answers per reasoner and question; with more than one, the majority counts."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    rule: RuleName = "strict"
    """How answers are scored, see docs/scoring.md."""
    judge: str | None = None
    """URL of a language model that helps the rule ``vlmevalkit`` to read answers."""
    limit: int | None = None
    """At most so many questions of every benchmark, the first; groups (DynaMath's seeds, WeMath's problems) whole."""

    def plan(self) -> Plan:
        """The lists with their short forms written out.

        Raises:
            RacroError: something is missing, twice there, or does not go together.
        """
        require(self.samples >= 1, f"samples={self.samples}", "1 or more")
        require(self.limit is None or self.limit >= 1, f"limit={self.limit}", "1 or more, or null for all questions")
        asked = _split(self.modes)
        unknown = [mode for mode in asked if mode not in get_args(Mode)]
        if unknown or not asked:
            got = f"there is no mode {unknown[0]!r}" if unknown else "modes is empty"
            raise RacroError(f"{got}; expected some of {', '.join(get_args(Mode))}")
        if self.judge is not None and self.rule != "vlmevalkit":
            raise RacroError(f"a judge goes with the rule vlmevalkit only; the rule is {self.rule}")
        benchmarks = [parse_benchmark(entry) for entry in _split(self.benchmarks)]
        captioners = [_captioner(entry) for entry in _split(self.captioners)]
        reasoners = [_reasoner(entry, self.sampling) for entry in _split(self.reasoners)]
        if not benchmarks or not captioners:
            raise RacroError(f"{'captioners' if benchmarks else 'benchmarks'} is empty; expected at least one")
        modes: list[Mode] = [mode for mode in get_args(Mode) if mode in asked]
        if modes != ["direct"] and not reasoners:
            raise RacroError(f"modes {', '.join(modes)} need a reasoner: set reasoners, or modes: [direct]")
        if self.samples > 1:
            for entry in reasoners:
                _refuse_greedy(entry, self.samples)
        refuse_doubles("captioners", [entry.name for entry in captioners])
        return Plan(benchmarks, captioners, reasoners, modes, self.samples, self.rule, self.judge, self.limit)


@dataclass(frozen=True)
class Plan:
    """:class:`EvaluationSettings`, checked and written out."""

    benchmarks: list[BenchmarkSettings]
    captioners: list[CaptionerSettings]
    reasoners: list[ReasonerSettings]
    modes: list[Mode]
    samples: int
    rule: RuleName
    judge: str | None
    limit: int | None


def open_reasoner(where: str, sampling: SamplingSettings) -> Reasoner:
    """The client of a reasoner given as URL or path. The package's own small ones answer greedily and in few words.

    Raises:
        RacroError: a number of ``sampling`` cannot be, whether or not this reasoner follows it; or the place cannot.
    """
    require_all(
        "sampling",
        (
            0 <= sampling.temperature < math.inf,
            f"temperature is {sampling.temperature}; expected a finite number, 0 (greedy) or more",
        ),
        (0 < sampling.top_p <= 1, f"top_p is {sampling.top_p}; expected a share above 0, at most 1"),
        *at_least(1, max_tokens=sampling.max_tokens),
    )
    if where.startswith(("http://", "https://")):
        return HttpReasoner(where, None, sampling.temperature, sampling.top_p, sampling.max_tokens)
    if where.startswith("embedded:"):
        return InProcessReasoner(where, temperature=0.0, max_new_tokens=16)
    return InProcessReasoner(where, sampling.temperature, sampling.top_p, sampling.max_tokens, batch_size=16)


def _split(value: str | Sequence[_Entry]) -> list[str | _Entry]:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)


def _captioner(entry: str | CaptionerSettings) -> CaptionerSettings:
    if isinstance(entry, str):
        name, path = named_path(entry)
        entry = CaptionerSettings(path, name)
    entry.name = entry.name or short_name(entry.model or entry.path)
    return entry


def _reasoner(entry: str | ReasonerSettings, sampling: SamplingSettings) -> ReasonerSettings:
    if isinstance(entry, str):
        name, where = named_path(entry)
        entry = ReasonerSettings(open_reasoner(where, sampling), name)
    client = entry.reasoner
    # A server is asked for its model's name only when a run begins: see evaluation.pipeline.check_parts.
    entry.name = entry.name or short_name(getattr(client, "path", None) or getattr(client, "model", None) or "")
    return entry


def _refuse_greedy(entry: ReasonerSettings, samples: int) -> None:
    if not entry.reasoner.deterministic:
        return
    where = str(getattr(entry.reasoner, "path", None) or getattr(entry.reasoner, "url", entry.name))
    advice = "set samples: 1, or a temperature above 0"
    if where.startswith("embedded:"):
        advice = "an embedded reasoner given by its name is always greedy: set samples: 1"
    raise RacroError(f"samples is {samples}, and those of the greedy reasoner {where} are all the same; {advice}")


def short_name(where: str) -> str:
    """A name for tables: the last telling part of a path, hub id or URL."""
    host = where.split("://", 1)[-1].removesuffix("/v1").rstrip("/")
    parts = [part for part in host.removeprefix("embedded:").split("/") if part not in ("adapter", "model", "")]
    return parts[-1] if parts else where
