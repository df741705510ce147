"""Dynamic sampling: groups from which nothing can be learnt make room for further questions.

As in DAPO (Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025, section 3.2), but
bounded, and what has no signal after the last round stays. Off by default: the reference run does not do it.

What it changes: a group whose captions all earned the same has advantage 0; it adds tokens to the mean of the step's
loss, and its KL term, and nothing else. Replaced, the mean is over groups that say something: the gradient is larger,
and questions come with a probability that grows with their chance to divide the captions, so that easy and hopeless
ones weigh less than in the data. The share of right captions among those *learnt from* says nothing about progress;
``reward/mean`` therefore counts all captions that were sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from racro_pl.losses import same_rewards
from racro_pl.training.stream import PendingGroup
from racro_pl.types import Rewards


def replace_flat(
    groups: Sequence[PendingGroup],
    rounds: int,
    result: Callable[[PendingGroup], Rewards],
    draw: Callable[[int], Iterable[PendingGroup]],
) -> tuple[list[PendingGroup], list[PendingGroup]]:
    """Put groups with signal in the place of groups without.

    Args:
        groups: the step's, on their way through the reasoner.
        rounds: how often to draw, each time as many groups as still have no signal.
        result: waits for a group's rewards.
        draw: samples that many groups of further questions; fewer may come.

    Returns:
        As many groups as came in, in their places; and those that are not learnt from.
    """
    kept, aside = list(groups), []
    for _ in range(rounds):
        flat = [place for place, group in enumerate(kept) if is_flat(result(group))]
        if not flat:
            break
        places = iter(flat)
        for group in list(draw(len(flat))):
            if not is_flat(result(group)) and (place := next(places, None)) is not None:
                kept[place], group = group, kept[place]
            aside.append(group)
    return kept, aside


def is_flat(rewards: Rewards) -> bool:
    """Whether all scored captions earned the same. False when none has a score: then more questions would not help."""
    scores = [total for total, scored in zip(rewards.total, rewards.scored, strict=True) if scored]
    return bool(scores) and same_rewards(scores)
