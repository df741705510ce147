"""Scripted captions: every habit is counted, examples are kept, a caption that leaks is told from one that helps."""

from __future__ import annotations

import dataclasses
import json

import pytest

from racro_pl.policy.captioner import Captioner
from racro_pl.reward.scorer import Scorer
from racro_pl.training.callbacks.caption_watch import CaptionWatch, _rotation, probe_other_images
from tests.fakes.reasoners import ScriptedReasoner
from tests.unit.training.conftest import fit, make_module, questions

SCRIPT = (
    "a red figure. the answer is red.",
    "a red figure. the answer is red.",
    "",
    "figure " * 20,
)
"""One group: the gold answer twice, the second time word for word; nothing; a loop."""


@pytest.fixture
def scripted(monkeypatch):
    real = Captioner.generate

    def generate(self, prompts, group_size, *rest):
        made = real(self, prompts, group_size, *rest)
        texts = SCRIPT * len(prompts) if group_size == 4 else ("a figure of some color",) * len(prompts)
        return dataclasses.replace(made, texts=texts)

    monkeypatch.setattr(Captioner, "generate", generate)


def test_every_habit_is_counted_and_shown(folder, tmp_path, scripted):
    trainer = fit(make_module(folder), tmp_path, steps=2, callbacks=[CaptionWatch(examples=1)])
    figures = {name: float(value) for name, value in trainer.logged_metrics.items() if name.startswith("watch/")}
    assert figures == pytest.approx(
        {"watch/states_gold": 0.5, "watch/states_answer": 0.5, "watch/empty": 0.25, "watch/repeated": 0.25,
         "watch/going_round": 0.25}
    )  # fmt: skip
    kept = [json.loads(line) for line in (tmp_path / "watch.jsonl").read_text().splitlines()]
    assert [(row["step"], row["habit"]) for row in kept[:5]] == [
        (1, name) for name in ("states_gold", "states_answer", "empty", "repeated", "going_round")
    ]
    assert len(kept) == 10
    assert kept[0]["caption"] == SCRIPT[0]
    assert kept[0]["gold"] == "red"


def test_the_probe_runs_at_every_nth_validation(folder, tmp_path):
    watch = CaptionWatch(probe_every=2)
    module = make_module(folder)
    seen = []
    real = module.log_dict
    module.log_dict = lambda figures, *rest: (seen.append(set(figures)), real(figures, *rest))
    fit(module, tmp_path, steps=3, callbacks=[watch], limit_val_batches=1, val_check_interval=1,
        check_val_every_n_epoch=None)  # fmt: skip
    assert watch.validations == 3
    assert sum("watch/accuracy_other_image" in names for names in seen) == 2  # the first and the third
    again = CaptionWatch(probe_every=2)
    again.load_state_dict(watch.state_dict())
    assert again.validations == 3


def answered(script, captions):
    """Own captions graded by the same script."""
    from racro_pl.training.metrics.accuracy import Answered

    scorer = Scorer(ScriptedReasoner(script), cache="off")
    items = [
        Answered(question, caption, scorer.submit(question, [caption]).result(), {})
        for question, caption in zip(questions(len(captions)), captions, strict=True)
    ]
    return scorer, items


def test_a_caption_that_is_needed_helps_no_other_question():
    # Every third image is about another figure; only the figure's own caption holds the color asked for.
    def script(prompt):
        return r"\boxed{red}" if "it is red" in prompt else r"\boxed{I cannot know}"

    scorer, items = answered(script, ["it is red", "it is round"] * 4)
    own, other, pairs = probe_other_images(scorer, items)
    assert (own, pairs) == (4.0, 8)
    assert other == 4.0


def test_a_caption_that_leaks_helps_every_question():
    scorer, items = answered(lambda prompt: r"\boxed{red}", ["whatever the question: red"] * 6)
    assert probe_other_images(scorer, items) == (6.0, 6.0, 6)


def test_pairs_without_a_score_are_left_out():
    scorer, items = answered(lambda prompt: None if "figure x" in prompt else r"\boxed{red}", ["a"] * 4)
    # The texts of questions 1, 2 and 3 ask about "figure x".
    assert probe_other_images(scorer, items) == (1.0, 1.0, 1)


@pytest.mark.parametrize(
    ("images", "pairs"),
    [([], 0), ([0], 0), ([0, 0], 0), ([0, 1], 2), ([0, 0, 1, 1], 4), ([0, 0, 0, 1], 2), ([0, 1, 2, 3, 4], 5)],
)
def test_captions_are_lent_to_questions_about_other_images(images, pairs):
    pictures = [question.images for question in questions(6)]
    asked = [dataclasses.replace(questions(1)[0], images=pictures[image]) for image in images]
    shift, places = _rotation(asked)
    assert len(places) == pairs
    assert all(images[place] != images[(place + shift) % len(images)] for place in places)


@pytest.mark.parametrize("settings", [{"examples": -1}, {"probe_every": -1}, {"probe_questions": 1}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="CaptionWatch: .* expected"):
        CaptionWatch(**settings)
