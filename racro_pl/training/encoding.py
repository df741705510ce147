"""Questions as the captioner reads them, in every role that it has to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from lightning.pytorch import LightningModule

from racro_pl.images import ImageError
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.prompts import TEMPLATES
from racro_pl.rollout.engine import EncodedQuestion
from racro_pl.text.printable import printable
from racro_pl.training.rollouts import part_lengths
from racro_pl.types import Prompt, Question, Role

RoleTuple = tuple[EncodedQuestion, ...]
"""One question, encoded once for each role."""


def encode_readable(
    captioner: Captioner, questions: Sequence[Question], roles: Sequence[Role], say: Callable[[str], None]
) -> list[RoleTuple]:
    """Open and tokenise questions; those whose pixels turn out broken are left out in all roles, and named.

    Their headers were fine when the data was built: only decoding shows it. The prompts of a question share their
    image features. The language model reads them once per prompt: they stand after the system's text, which is
    another one in each role.

    Args:
        say: is told of a question that is left out.
    """
    encoded: list[RoleTuple] = []
    for question in questions:
        prompts: list[Prompt] = []
        try:
            for role in roles:
                prompts.append(captioner.encode(question, TEMPLATES[role], like=prompts[0] if prompts else None))
        except ImageError as error:
            say(printable(f"question {question.id} left out: {error}"))
        else:
            encoded.append(tuple((question, prompt) for prompt in prompts))
    return encoded


def telling(module: LightningModule) -> Callable[[str], None]:
    """What names a left-out question, on the rank whose it is: Lightning's ``print`` speaks on the first alone."""
    return module.print if module.trainer.is_global_zero else partial(print, flush=True)


def in_order(encoded: Sequence[RoleTuple], updates: int) -> list[EncodedQuestion]:
    """One list of what to sample: update by update, and in each role by role.

    Args:
        updates: in the step, see :func:`racro_pl.training.rollouts.micro_batches`.
    """
    listed: list[EncodedQuestion] = []
    start = 0
    for length in part_lengths(len(encoded), updates):
        part = encoded[start : start + length]
        listed += [pair for of_role in zip(*part, strict=True) for pair in of_role]
        start += length
    return listed
