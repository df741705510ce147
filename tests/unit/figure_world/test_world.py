"""The drawn world: reproducible, split by content, and audited exactly."""

import hashlib
from dataclasses import replace

import pytest

from racro_pl.figure_world.world import TYPES, VALUES, audit_caption, figure_questions
from racro_pl.images import image_size, open_image


def test_no_scene_of_one_split_is_described_in_another():
    scenes = {
        split: {repr(sorted(q.metadata["facts"].items())) for q in figure_questions(split, 600)}
        for split in ("train", "validation", "test")
    }
    assert not scenes["train"] & scenes["validation"]
    assert not scenes["train"] & scenes["test"]
    assert not scenes["validation"] & scenes["test"]


def test_questions_are_the_same_everywhere():
    texts = [(q.id, q.text, q.answer) for q in figure_questions("test", 50, seed=3)]
    assert hashlib.sha256(repr(texts).encode()).hexdigest()[:16] == "3e7ef839f0fc60cc"
    assert figure_questions("test", 8) == figure_questions("test", 50)[:8]
    assert figure_questions("test", 8) != figure_questions("test", 8, seed=1)


def test_questions_are_balanced_and_answered_by_the_scene():
    questions = figure_questions("train", 40)
    assert [sum(q.category == kind for q in questions) for kind in TYPES] == [10] * 4
    for question in questions:
        assert question.answer == question.metadata["facts"][question.metadata["key"]]
        assert question.answer in VALUES[question.category]
        assert image_size(question.images[0]) == (56, 56)
        assert open_image(question.images[0]).mode == "RGB"


@pytest.mark.parametrize(
    ("caption", "asked", "sentences", "true"),
    [
        ("color of circle red .", True, 1, 1),
        ("color of circle red . shade of background light .", True, 2, 1),  # a side fact that is wrong
        ("color of circle blue .", False, 1, 0),
        ("color of circle red . color of circle blue .", False, 2, 1),  # contradicts itself
        ("fill of circle red .", False, 1, 0),  # a value of another attribute
        ("circle red .", False, 1, 0),
        ("red", False, 1, 0),
        ("", False, 0, 0),
        ("shade of background dark .", False, 1, 1),
        ("color of circle red red .", False, 1, 0),
    ],
)
def test_audit(caption, asked, sentences, true):
    question = replace(
        figure_questions("train", 1)[0],
        metadata={"key": "color of circle", "facts": {"color of circle": "red", "shade of background": "dark"}},
    )
    audit = audit_caption(question, caption)
    assert (audit.asked_stated, audit.sentences, audit.true_sentences) == (asked, sentences, true)
