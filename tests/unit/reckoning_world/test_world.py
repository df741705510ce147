"""The drawn world of counts: reproducible, split by content, answerable, and audited exactly."""

import hashlib
from dataclasses import replace

import pytest

from racro_pl.data import ReckoningWorldReader
from racro_pl.images import image_size, open_image
from racro_pl.reckoning_world.world import ASKED, WHITE, audit_caption, reckoning_questions, work_out
from racro_pl.types import RacroError


def test_no_scene_of_one_split_is_described_in_another():
    scenes = {
        split: {repr(sorted(q.metadata["sentences"].values())) for q in reckoning_questions(split, 600)}
        for split in ("train", "validation", "test")
    }
    assert not scenes["train"] & scenes["validation"]
    assert not scenes["train"] & scenes["test"]
    assert not scenes["validation"] & scenes["test"]


def test_questions_are_the_same_everywhere():
    texts = [(q.id, q.text, q.answer) for q in reckoning_questions("test", 50, seed=3)]
    assert hashlib.sha256(repr(texts).encode()).hexdigest()[:16] == "30e5816ec2b3cab5"
    assert reckoning_questions("test", 8) == reckoning_questions("test", 50)[:8]
    assert reckoning_questions("test", 8) != reckoning_questions("test", 8, seed=1)


def test_questions_are_balanced_and_answered_by_the_scene():
    questions = reckoning_questions("train", 40)
    assert [sum(q.category == kind for q in questions) for kind in ASKED] == [10] * 4
    for question in questions:
        colors, dots = question.metadata["colors"], question.metadata["dots"]
        assert len(colors) == ASKED[question.category]
        assert all(f" {color}" in question.text for color in colors)
        if question.category == "more":
            one, other = colors
            assert question.answer == max(colors, key=dots.get)
            assert dots[one] != dots[other]  # a tie has no answer
        else:
            assert 0 <= int(question.answer) <= 18
        assert image_size(question.images[0]) == (56, 56)


def test_several_questions_of_one_picture_are_of_different_types():
    questions = reckoning_questions("train", 22, per_scene=3)
    assert len({question.id for question in questions}) == len(questions) == 22
    for start in range(0, 21, 3):
        together = questions[start : start + 3]
        assert len({question.images for question in together}) == 1
        assert len({question.category for question in together}) == 3
        for question in together:
            colors, dots = question.metadata["colors"], question.metadata["dots"]
            assert question.answer == work_out(question.category, colors, [dots[color] for color in colors])
    assert len({question.images for question in questions}) == 8
    assert reckoning_questions("train", 7, per_scene=3) == questions[:7]
    reader = ReckoningWorldReader(train=8, test=8, questions_per_picture=4)
    assert len({question.images for question in reader.read("train").questions}) == 2
    assert reader.read("test").questions == reckoning_questions("test", 8)
    with pytest.raises(RacroError, match="questions_per_picture=5, expected 1 to 4"):
        ReckoningWorldReader(questions_per_picture=5)


def test_every_dot_is_drawn_whole():
    """Dots of 4 x 4 pixels, in white that no tile or background has: 16 pixels for each dot of the scene."""
    for question in reckoning_questions("validation", 60):
        pixels = open_image(question.images[0]).tobytes()
        white = sum(tuple(pixels[at : at + 3]) == WHITE for at in range(0, len(pixels), 3))
        assert white == 16 * sum(question.metadata["dots"].values())


@pytest.mark.parametrize(
    ("kind", "dots", "answer"),
    [
        ("more", (5, 3), "red"),
        ("more", (3, 5), "blue"),
        ("sum", (9, 8), "17"),
        ("difference", (5, 5), "0"),
        ("two_steps", (5, 3, 8), "0"),
        ("two_steps", (5, 3, 2), "6"),
    ],
)
def test_arithmetic(kind, dots, answer):
    assert work_out(kind, ("red", "blue", "green"), dots) == answer


@pytest.mark.parametrize(
    ("caption", "asked", "sentences", "true"),
    [
        ("red has 5 dots. blue has 1 dot.", True, 2, 2),
        (" blue has 1 dot. background is dark. red has 5 dots.", True, 3, 3),
        ("red has 5 dots. blue has 1 dot. red is sharp.", True, 3, 2),  # a side fact that is wrong
        ("red has 5 dots.", False, 1, 1),  # the other count is missing
        ("red has 5 dots. blue has 2 dots.", False, 2, 1),
        ("red has 5 dots. blue has 1 dot. red has 4 dots.", False, 3, 2),  # contradicts itself
        ("red has 5 dots. blue has 1 dots.", False, 2, 1),  # no English
        ("red 5. blue 1.", False, 2, 0),
        ("red has 5 dots. green has 1 dot.", False, 2, 1),  # there is no green tile
        ("", False, 0, 0),
        (r"\boxed{ 6}", False, 1, 0),
    ],
)
def test_audit(caption, asked, sentences, true):
    told = {
        "dots of red": "red has 5 dots.", "dots of blue": "blue has 1 dot.", "edge of red": "red is round.",
        "shade": "background is dark.",
    }  # fmt: skip
    question = replace(reckoning_questions("train", 1)[0], metadata={"colors": ("red", "blue"), "sentences": told})
    audit = audit_caption(question, caption)
    assert (audit.asked_stated, audit.sentences, audit.true_sentences) == (asked, sentences, true)
    shares = ReckoningWorldReader().audit_caption(question, caption)
    assert shares == {"asked_counts_stated": float(asked), "true_sentences": true / max(1, sentences)}


def test_reader():
    reader = ReckoningWorldReader(train=3, validation=2, test=0)
    assert [len(reader.read(split).questions) for split in ("train", "validation", "test")] == [3, 2, 0]
    assert set(reader.audit_names()) == {"asked_counts_stated", "true_sentences"}
    with pytest.raises(RacroError, match="got test: -1; expected 0 or more"):
        ReckoningWorldReader(test=-1)
