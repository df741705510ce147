"""Is the reward earned by describing? Figures that move first when it is not, and their captions.

What each figure means, and when to worry, is in docs/reward_hacking.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from racro_pl.files import append_private
from racro_pl.reporting import surviving
from racro_pl.reward.reward_function import RewardFunction
from racro_pl.text.habits import goes_round, states_answer, states_gold
from racro_pl.text.printable import json_line
from racro_pl.text.thoughts import without_thoughts
from racro_pl.training.checkpointing.run_folder import run_folder
from racro_pl.training.distributed import all_reduce
from racro_pl.training.metrics.accuracy import Answered
from racro_pl.training.module import RacroModule
from racro_pl.types import Question, Rewards, Rollout, at_least, require_all

Habit = Callable[[Rollout, int], bool]
HABITS: dict[str, Habit] = {
    "states_gold": lambda rollout, index: _states_gold(rollout.question, _read(rollout, index)),
    "states_answer": lambda rollout, index: states_answer(_read(rollout, index)),
    "empty": lambda rollout, index: not _read(rollout, index).strip(),
    "repeated": lambda rollout, index: rollout.texts[index] in rollout.texts[:index],
    "going_round": lambda rollout, index: goes_round(rollout.texts[index]),
}
"""By name, what is looked for in the caption at an index of a group. ``repeated``: an earlier one of its group is the
same."""


class CaptionWatch(Callback):
    """Logs ``watch/<habit>``, the share of a step's captions with each habit, and keeps examples in ``watch.jsonl``.

    With objective qa the texts are the captioner's own answers; with joint, where both are sampled, the captions alone.

    At every ``probe_every``-th validation it also asks the reasoner each question with the caption of *another* image
    and logs ``watch/accuracy_other_image`` beside ``watch/accuracy_own_image`` of the same questions.

    Args:
        examples: captions per step and habit to keep, those with the highest reward first; 0 keeps none.
        probe_every: validations from one probe to the next; 0 never probes.
        probe_questions: questions per probe and rank, each one more prompt to the reasoner.
    """

    def __init__(self, examples: int = 2, probe_every: int = 1, probe_questions: int = 64) -> None:
        checks = at_least(0, examples=examples, probe_every=probe_every)
        require_all("CaptionWatch", *checks, *at_least(2, probe_questions=probe_questions))
        self.examples = examples
        self.probe_every = probe_every
        self.probe_questions = probe_questions
        self.validations = 0
        self._answered: list[Answered] = []

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]

    # ------------------------------------------------------------------ every step

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        """Count habits over all ranks; keep examples."""
        folder = run_folder(trainer)
        groups = pl_module.first_role(pl_module.last_step)
        found = {
            name: [
                (rollout, rewards, index)
                for rollout, rewards in groups
                for index in range(len(rollout.texts))
                if habit(rollout, index)
            ]
            for name, habit in HABITS.items()
        }
        captions = sum(len(rollout.texts) for rollout, _ in groups)
        counts = torch.tensor([captions, *map(len, found.values())], dtype=torch.float64)
        total, *shares = all_reduce(counts).tolist()
        pl_module.log_dict({f"watch/{name}": n / max(total, 1.0) for name, n in zip(found, shares, strict=True)})
        lines = [
            json_line({"step": trainer.global_step, "habit": name, **_record(*example)})
            for name, examples in found.items()
            for example in sorted(examples, key=_reward, reverse=True)[: self.examples]
        ]
        if lines:
            name = "watch.jsonl" if trainer.world_size == 1 else f"watch-rank{trainer.global_rank}.jsonl"
            append_private(folder / name, lines)

    # ------------------------------------------------------------------ the leak probe

    def on_validation_start(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        self._answered = []

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: RacroModule, outputs: dict[str, list[Answered]], *args: Any
    ) -> None:
        """Remember the first questions and their captions."""
        self._answered += outputs["answered"][: self.probe_questions - len(self._answered)]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Ask with captions of other images, when it is time. Every rank takes part in the sums, whatever it has."""
        if trainer.sanity_checking:
            return
        self.validations += 1
        due = bool(self.probe_every) and (self.validations - 1) % self.probe_every == 0
        if not due or pl_module.objective.name == "qa":  # own answers are not captions
            return
        folder = run_folder(trainer)
        own = other = pairs = 0.0
        with surviving("the probe with other images' captions", folder):
            own, other, pairs = probe_other_images(pl_module.scorer, self._answered)
        self._answered = []
        own, other, pairs = all_reduce(torch.tensor([own, other, pairs], dtype=torch.float64)).tolist()
        if pairs:
            shares = {"watch/accuracy_own_image": own / pairs, "watch/accuracy_other_image": other / pairs}
            pl_module.log_dict(shares)


def probe_other_images(scorer: RewardFunction, answered: Sequence[Answered]) -> tuple[float, float, int]:
    """How often the reasoner is right with a question's own caption, and with that of a question on another image.

    Captions are handed on by the rotation that pairs the most questions with another image: each is used once. Pairs
    of which one side has no score are left out.

    Returns:
        Sums of right answers with own and with other captions, and the number of pairs.
    """
    shift, pairs = _rotation([item.question for item in answered])
    lent = [(answered[index], answered[(index + shift) % len(answered)].caption) for index in pairs]
    pending = [(item, scorer.submit(item.question, [caption])) for item, caption in lent]
    own = other = 0.0
    count = 0
    for item, waiting in pending:
        rewards = waiting.result()
        if item.correct is not None and rewards.scored[0]:
            own += item.correct
            other += rewards.parts["correct"][0]
            count += 1
    return own, other, count


def _rotation(questions: Sequence[Question]) -> tuple[int, list[int]]:
    """A shift, and the places whose question has other images than the one ``shift`` places further."""
    count = len(questions)
    best: tuple[int, list[int]] = (0, [])
    # From the middle on: data sets keep the questions of one image side by side.
    for offset in range(count - 1):
        shift = (count // 2 + offset - 1) % (count - 1) + 1
        places = [i for i in range(count) if questions[i].images != questions[(i + shift) % count].images]
        if len(places) > len(best[1]):
            best = shift, places
        if len(places) == count:
            break
    return best


def _read(rollout: Rollout, index: int) -> str:
    """The caption as the reasoner reads it."""
    return without_thoughts(rollout.texts[index])


def _states_gold(question: Question, caption: str) -> bool:
    return states_gold(caption, question.answer, question.answer_type, question.choices)


def _reward(example: tuple[Rollout, Rewards, int]) -> float:
    _, rewards, index = example
    return rewards.total[index] if rewards.scored[index] else -1.0


def _record(rollout: Rollout, rewards: Rewards, index: int) -> dict[str, Any]:
    return {
        "question_id": rollout.question.id,
        "question": rollout.question.text,
        "gold": rollout.question.answer,
        "caption": rollout.texts[index],
        "reward": rewards.total[index] if rewards.scored[index] else None,
    }
