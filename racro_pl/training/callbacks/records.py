"""What a run leaves: every caption, what was trained, and which questions are solved."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from racro_pl.files import append_private, whole_folder
from racro_pl.text.printable import json_line
from racro_pl.text.thoughts import without_thoughts
from racro_pl.training.checkpointing.run_folder import run_folder
from racro_pl.training.distributed import join_ranks
from racro_pl.training.module import RacroModule
from racro_pl.training.strategy import gather


class CaptionLog(Callback):
    """Appends every sampled text to ``captions.jsonl``: one JSON object a line, with all that made its reward."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        """One line per text: step, role, question, caption or own answer (and what was written, where thoughts were
        cut from it), reasoner answers, verdict, reward and its parts."""
        folder = run_folder(trainer)
        lines = []
        for rollout, rewards in pl_module.last_step:
            for index, text in enumerate(rollout.texts):
                caption = without_thoughts(text)
                record = {
                    "step": trainer.global_step,
                    "role": rollout.role,
                    "question_id": rollout.question.id,
                    "question": rollout.question.text,
                    "gold": rollout.question.answer,
                    "caption": caption,
                    **({"written": text} if text != caption else {}),
                    "caption_tokens": int(rollout.mask[index].sum()),
                    "truncated": rollout.truncated[index],
                    "adapter_version": rollout.adapter_version,
                    "reasoner_answers": rewards.answers[index],
                    "extracted": rewards.extracted[index],
                    "scored": rewards.scored[index],
                    "reason": rewards.reasons[index],
                    "reward": rewards.total[index] if rewards.scored[index] else None,
                    "parts": {name: values[index] for name, values in rewards.parts.items()},
                }
                lines.append(json_line(record))
        if not lines:
            return
        name = "captions.jsonl" if trainer.world_size == 1 else f"captions-rank{trainer.global_rank}.jsonl"
        append_private(folder / name, lines)


class SolvedQuestions(Callback):
    """Tells the data module which questions were solved, where its curriculum draws those less often.

    A question is solved when all its captions have a score and every one led to the right answer. (With objective qa:
    all its answers. With joint its own answers do not count.)
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: Any) -> None:  # type: ignore[override]
        """Join what all ranks found, so that they continue to draw the same order."""
        curriculum = getattr(trainer.datamodule, "curriculum", None)  # type: ignore[attr-defined]
        if curriculum is None or curriculum.solved_weight == 1:
            return
        found = {
            rollout.question.id: all(rewards.scored) and min(rewards.parts["correct"]) == 1.0
            for rollout, rewards in pl_module.first_role(pl_module.last_step)
        }
        for results in join_ranks([found]):
            trainer.datamodule.note_solved(results)  # type: ignore[attr-defined]


class SaveResult(Callback):
    """Writes what was trained to the run folder: ``adapter/`` (PEFT), or ``model/`` after full fine-tuning.

    Before any report: callbacks of a configuration come after it.
    """

    def on_train_end(self, trainer: Trainer, pl_module: RacroModule) -> None:  # type: ignore[override]
        """Save, on one rank; a run that is killed meanwhile leaves the folder of before, or none."""
        full = pl_module.policy_settings.lora is None
        target = run_folder(trainer) / ("model" if full else "adapter")
        # Every rank has a part of what is trained; adapters are whole everywhere.
        weights = gather(pl_module.captioner.model.state_dict()) if full else None
        if trainer.is_global_zero:
            with whole_folder(target) as folder:
                pl_module.captioner.save(folder, weights)
                # PEFT's template: an empty card that names this machine's paths. `racro-pl export` writes a real one.
                (folder / "README.md").unlink(missing_ok=True)
