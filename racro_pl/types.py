"""The vocabulary: what one station of the data path hands to the next.

Letters used in shapes, everywhere:

====== ==================================================
``b``  questions per step (B)
``g``  captions per question (G)
``n``  captions in a batch; N = B * G captions per step
``p``  prompt tokens, image tokens counted (P)
``t``  caption tokens (T)
====== ==================================================

A log-prob is named by its author: ``sampler_logprobs`` (the engine that sampled), ``old_logprobs`` (the
policy before the update), ``policy_logprobs`` (the policy now, with gradient), ``ref_logprobs`` (adapter off).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

AnswerType = Literal["choice", "math", "text"]
Role = Literal["caption", "answer"]
"""What the captioner is asked for: a caption for the reasoner, or its own answer."""
Messages = list[dict[str, Any]]
"""A chat: ``[{"role": ..., "content": ...}, ...]``, as OpenAI-compatible servers and chat templates take it."""


class RacroError(Exception):
    """A mistake or fault that the user can act on: the command line shows its message alone, without a traceback."""


class SettingError(RacroError, ValueError):
    """A constructor argument that cannot be: wherever the object is built, the user needs the message alone."""


def require(condition: bool, got: str, expected: str) -> None:
    """Refuse a constructor argument.

    Raises:
        SettingError: ``condition`` is false.
    """
    if not condition:
        raise SettingError(f"got {got}, expected {expected}")


def require_all(section: str, *checks: tuple[bool, str]) -> None:
    """Refuse arguments that do not hold, all of them in one message.

    Args:
        section: of the configuration.
        checks: what must hold, and the problem where it does not.

    Raises:
        SettingError: a check does not hold.
    """
    problems = [problem for holds, problem in checks if not holds]
    if problems:
        raise SettingError(f"{section}: {'; '.join(problems)}")


def at_least(least: float, **values: float | None) -> list[tuple[bool, str]]:
    """Checks for :func:`require_all`: every value is null, or ``least`` or more (not so for NaN)."""
    return [(value is None or value >= least, f"{name} is {value}; expected {least:g} or more")
            for name, value in values.items()]  # fmt: skip


def positive(**values: float | None) -> list[tuple[bool, str]]:
    """Checks for :func:`require_all`: every value is null, or more than 0."""
    return [(value is None or value > 0, f"{name} is {value}; expected more than 0") for name, value in values.items()]


@dataclass(frozen=True)
class ImageRef:
    """Where one image is: a file, or its encoded bytes (PNG, JPEG, ...). Exactly one of the two is set."""

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise ValueError("ImageRef takes either a path or data, not both and not neither")

    @property
    def is_there(self) -> bool:
        """Whether there is something to open. A name that is too long for the system names no file."""
        try:
            return self.path is None or self.path.is_file()
        except OSError:
            return False

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else f"<{len(self.data or b'')} bytes>"


@dataclass(frozen=True)
class Question:
    """One task. ``text`` may hold ``<image>`` tags: the images then sit there, else before the text."""

    id: str
    images: tuple[ImageRef, ...]
    text: str
    answer: str
    """Gold answer, without ``\\boxed{}``. For ``answer_type == "choice"`` it is the option's letter."""
    answer_type: AnswerType
    choices: tuple[str, ...] = ()
    """Texts of the options A, B, ...; empty when the question is open or its options stand inside ``text``."""
    source: str = ""
    """Provenance: the name of the data set."""
    category: str = ""
    """Question type, for accuracy by type."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    pool: tuple[Question, ...] = field(default=(), repr=False)
    """All training questions about the same images, this one among them, for a reward that asks others too; they have
    no pool themselves. Empty where it is the only one."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A question as the captioner reads it, tokenised and with its images processed once. Equal only to itself."""

    input_ids: Int[Tensor, " p"]
    mm_token_type_ids: Int[Tensor, " p"]
    """0 for text, 1 for image tokens: without them transformers falls back to 1-D positions."""
    vision: Mapping[str, Tensor] = field(default_factory=dict)
    """What the processor made of the images, by the names that the model reads it by; empty without images.
    ``pixel_values`` is always among them. Prompts of one question share it, and so the features of its images."""
    role: Role = "caption"
    """What it asks for."""

    @property
    def pixel_values(self) -> Tensor | None:
        """The processed pixels, in the family's own layout; None without images."""
        return self.vision.get("pixel_values")


@dataclass(frozen=True)
class Rollout:
    """The G captions sampled for one question."""

    question: Question
    prompt: Prompt
    token_ids: Int[Tensor, "g t"]
    """Padded on the right after the first end-of-text token."""
    mask: Bool[Tensor, "g t"]
    """True up to and including the first end-of-text token (all True when cut by the length limit)."""
    sampler_logprobs: Float[Tensor, "g t"] | None
    """0 on padding. None from an engine that does not tell them: nothing is then compared, or weighted."""
    texts: tuple[str, ...]
    truncated: tuple[bool, ...]
    """Whether the length limit cut the caption."""
    adapter_version: int
    """Number of optimizer steps that the sampling weights had seen."""

    @property
    def role(self) -> Role:
        """What the texts are: captions, or the captioner's own answers."""
        return self.prompt.role


@dataclass(frozen=True)
class Rewards:
    """What the reasoner's answers earned each of one question's captions (tuples of length G)."""

    total: tuple[float, ...]
    """0.0 where ``scored`` is False; never read it there."""
    parts: Mapping[str, tuple[float, ...]]
    """Named parts, for the log: ``correct`` (share of votes graded right), ``answered`` (share with an answer)."""
    scored: tuple[bool, ...]
    reasons: tuple[str | None, ...]
    """Why a caption has no score; None where it has one."""
    answers: tuple[tuple[str, ...], ...]
    """Per caption, the reasoner's raw texts (one per vote that came back)."""
    extracted: tuple[tuple[str | None, ...], ...]
    """Per caption and vote, the answer found in the text."""


@dataclass(frozen=True)
class Experience:
    """What the loss needs for a micro-batch of N captions of one or more groups."""

    prompts: tuple[Prompt, ...]
    """One per group; ``group_index`` says which prompt a caption belongs to."""
    group_index: Int[Tensor, " n"]
    token_ids: Int[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    """Caption tokens that count in the loss: False on padding and on every token of an unscored caption."""
    advantages: Float[Tensor, " n"]
    old_logprobs: Float[Tensor, "n t"] | None
    """None when the policy has not changed since sampling: the policy's own, detached, are then exact."""
    ref_logprobs: Float[Tensor, "n t"] | None
    """None when the KL coefficient is 0."""
    importance: Float[Tensor, "n t"] | None = None
    """Truncated weights policy / sampler of the policy term; None when the policy itself sampled."""


@dataclass(frozen=True)
class LossOutput:
    """A loss summed over tokens or captions (not yet normalised) and the sums that its metrics are made of."""

    loss: Float[Tensor, ""]
    sums: Mapping[str, Float[Tensor, ""]]
    """Per-token sums: divide by the step's tokens for ``kl``, ``clip_share``, ``entropy``, ..."""
