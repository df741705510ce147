"""Reasoners that training does not ask: each reads the captions of held-out questions, and has a line of its own."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace

import pytest

from racro_pl.data import FigureWorldReader, RacroDataModule
from racro_pl.reward import FunctionReward, InProcessReasoner, Scorer, SeveralReasoners
from racro_pl.reward.reasoner import Reasoner, Reply
from racro_pl.training.callbacks.learning_report import LearningReport
from racro_pl.training.callbacks.readers import Readers, reasoner_name, trained_with
from racro_pl.training.metrics.accuracy import Answered, PipelineAccuracy
from racro_pl.types import RacroError, Rewards
from tests.unit.training.test_scores import module, trainer


class Constant(Reasoner):
    """Always gives one answer; counts what it was asked."""

    def __init__(self, path: str, answer: str) -> None:
        self.path = path
        self.answer = answer
        self.asked = []
        self.checked = self.closed = 0

    @property
    def identity(self) -> str:
        return self.path

    @property
    def deterministic(self) -> bool:
        return True

    def check(self) -> None:
        self.checked += 1

    def submit(self, prompts):
        self.asked += [messages[-1]["content"] for messages in prompts]
        futures = [Future() for _ in prompts]
        for future in futures:
            future.set_result(Reply(text=rf"\boxed{{{self.answer}}}"))
        return futures

    def close(self) -> None:
        self.closed += 1


def embedded(name: str) -> InProcessReasoner:
    return InProcessReasoner(f"embedded:{name}", temperature=0.0, max_new_tokens=8)


NOTHING = Rewards((0.0,), {"correct": (0.0,)}, (True,), (None,), ((),), ((),))


def test_every_reasoner_reads_the_same_captions():
    questions = FigureWorldReader(test=8).read("test").questions
    questions = [replace(question, answer="red" if place < 3 else "blue") for place, question in enumerate(questions)]
    answered = [Answered(question, f"caption {place}", NOTHING, {}) for place, question in enumerate(questions)]
    red, blue = Constant("some/red", "red"), Constant("some/blue", "blue")
    readers = Readers([red, blue])
    metrics = readers.read(answered, lambda: PipelineAccuracy(sorted({q.category for q in questions}), ()))
    readers.close()
    assert readers.names == ["red", "blue"]
    assert [metric.compute()["accuracy"] for metric in metrics] == [3 / 8, 5 / 8]
    assert red.asked == blue.asked
    assert all(f"image: caption {place}\n" in text for place, text in enumerate(red.asked))
    assert red.closed == blue.closed == 1


def test_a_name_stands_for_one_reasoner():
    with pytest.raises(RacroError, match="got the names red, red; expected another model's name for each"):
        Readers([Constant("a/red", "red"), Constant("b/red", "red")])
    with pytest.raises(RacroError, match=r"got the names \(none\)"):
        Readers([Constant("", "red")])


def test_the_reasoner_of_training_has_the_name_that_test_would_give_it():
    reader = embedded("figure-reasoner")
    assert reasoner_name(reader) == trained_with(Scorer(reader)) == "figure-reasoner"
    assert trained_with(SeveralReasoners([reader, embedded("figure-reasoner-b")])) == "training"
    assert trained_with(FunctionReward(lambda question, caption: 1.0)) == "training"


def test_a_run_ends_with_a_line_for_each(tmp_path, capfd):
    reader = Constant("hub/always-red", "red")
    report = LearningReport(questions=8, sheet_images=1, reasoners=[reader])
    data = RacroDataModule(FigureWorldReader(train=4, validation=0, test=8), questions_per_step=2)
    trainer(tmp_path, max_steps=1, callbacks=[report], enable_checkpointing=False).fit(module(), datamodule=data)
    printed = capfd.readouterr().out
    held_out = json.loads(next(tmp_path.rglob("held_out.json")).read_text())
    red = sum(question.answer == "red" for question in data.questions["test"]) / 8
    assert held_out["before"]["always-red: accuracy"] == held_out["after"]["always-red: accuracy"] == red
    assert f"held-out accuracy (always-red): {red:.1%} -> {red:.1%} (8 questions)" in printed
    before, after = (held_out[when]["accuracy"] for when in ("before", "after"))
    assert f"held-out accuracy (figure-reasoner): {before:.1%} -> {after:.1%} (8 questions)" in printed
    assert len(reader.asked) == 16
    assert reader.checked == 1


def test_reasoners_do_not_read_own_answers(tmp_path):
    report = LearningReport(questions=2, reasoners=[Constant("hub/always-red", "red")])
    data = RacroDataModule(FigureWorldReader(train=4, validation=0, test=2), questions_per_step=2)
    with pytest.raises(RacroError, match="with objective qa the captioner writes answers"):
        trainer(tmp_path, max_steps=1, callbacks=[report]).fit(module(name="qa"), datamodule=data)


def test_a_run_is_resumed_with_its_reasoners_or_not_at_all():
    state = LearningReport(reasoners=[Constant("a/red", "red")]).state_dict()
    LearningReport(reasoners=[Constant("a/red", "red")]).load_state_dict(state)
    with pytest.raises(RacroError, match=r"reasoners is \[\], but .* began with \['red'\]"):
        LearningReport().load_state_dict(state)
    del state["reasoners"]  # as runs wrote it before there were any
    LearningReport().load_state_dict(state)
