"""The reward over several questions about one picture."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from PIL import Image

from racro_pl.data import JsonlReader
from racro_pl.data.same_images import with_pools
from racro_pl.reward.several_questions import CANNOT_ANSWER, SeveralQuestions, over_questions, shuffled
from racro_pl.text.choices import with_choices
from racro_pl.types import ImageRef, Question, SettingError
from tests.fakes.reasoners import ScriptedReasoner

IMAGE = (ImageRef(data=b"one"),)
COLOR, SHAPE, SIZE = (
    Question(name, IMAGE, f"<image>which {name}?", answer, "text")
    for name, answer in (("color", "red"), ("shape", "round"), ("size", "big"))
)


class Reader:
    """Finds the answer to a question in a caption that has its word; silent where the caption says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: str) -> str | None:
        caption, question = prompt.split("### Question")
        name = next(each.id for each in (COLOR, SHAPE, SIZE) if each.id in question)
        self.asked.append(name)
        if f"no {name}" in caption:
            return None
        answers = {each.id: each.answer for each in (COLOR, SHAPE, SIZE)}
        return rf"\boxed{{{answers[name] if answers[name] in caption else 'unknown'}}}"


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def asked():
    """The question about the colour, which knows of the other two."""
    return with_pools([COLOR, SHAPE, SIZE])[0]


def scorer(reader, **options):
    return SeveralQuestions(ScriptedReasoner(reader), cache="off", **options)


def test_a_caption_is_paid_the_mean_over_its_own_question_and_the_others(reader, asked):
    rewards = scorer(reader).submit(asked, ["red", "red round", "round big", "red round big"], seed=1).result()
    assert rewards.total == pytest.approx((1 / 3, 2 / 3, 2 / 3, 1.0))
    assert rewards.parts["correct"] == (1.0, 1.0, 0.0, 1.0)  # accuracies stay those of the question itself
    assert rewards.parts["others"] == (0.0, 0.5, 1.0, 1.0)
    assert rewards.extracted[2] == ("unknown",)
    assert sorted(reader.asked) == ["color"] * 4 + ["shape"] * 4 + ["size"] * 4


def test_the_others_are_drawn_anew_for_every_step_and_alike_for_a_group(reader, asked):
    drawn = set()
    for seed in range(12):
        reader.asked.clear()
        scorer(reader, others=1).submit(asked, ["red", "dark"], seed=seed).result()
        first, second, *others = reader.asked
        assert (first, second) == ("color", "color")
        assert others[0] == others[1]
        drawn.add(others[0])
    assert drawn == {"shape", "size"}


def test_without_others_it_is_the_plain_reward(reader):
    rewards = scorer(reader).submit(COLOR, ["red", "dark"], seed=3).result()
    assert rewards.total == (1.0, 0.0)
    assert rewards.parts["others"] == (0.0, 0.0)


def test_a_caption_with_one_verdict_missing_has_no_score(reader, asked):
    several = scorer(reader)
    rewards = several.submit(asked, ["red no size", "red round"], seed=1).result()
    assert rewards.scored == (False, True)
    assert rewards.total == pytest.approx((0.0, 2 / 3))
    assert rewards.reasons[0]
    assert rewards.reasons[1] is None
    assert several.drain_stats()["captions"] == 2


def test_a_caption_without_several_verdicts_is_counted_once(reader, asked):
    several = scorer(reader, others=2)
    rewards = several.submit(asked, ["no shape, no size", "no color, no shape, no size", "red"]).result()
    assert rewards.scored == (False, False, True)
    stats = several.drain_stats()
    assert stats["unscored"] == sum(count for name, count in stats.items() if name.startswith("unscored/")) == 2


OPTIONS = ("red", "green", "blue")


@pytest.mark.parametrize("text", ["which?", with_choices("which?", OPTIONS)])  # as a reader leaves it
def test_options_are_shuffled_and_one_more_says_that_there_is_no_answer(text):
    asked = Question("q", (), text, "B", "choice", choices=OPTIONS)
    seen = set()
    for seed in range(40):
        other = shuffled(asked, random.Random(seed))
        assert other.text == "which?"  # the old order is gone: a prompt lists the options once
        assert sorted(other.choices[:3]) == ["blue", "green", "red"]
        assert other.choices[3] == CANNOT_ANSWER
        assert other.choices["ABC".index(other.answer)] == "green"
        seen.add(other.choices)
    assert len(seen) == 6
    assert shuffled(COLOR, random.Random(0)) == COLOR


@pytest.mark.parametrize(
    ("text", "options"), [("which? (A) red (B) green (C) blue", OPTIONS), ("which figure?", ("A", "B", "C"))]
)
def test_options_that_text_or_picture_name_are_left_as_they_are(text, options):
    asked = Question("q", (), text, "B", "choice", choices=options)
    assert shuffled(asked, random.Random(1)) == asked


def test_a_question_from_a_file_reaches_the_reasoner_with_one_list_of_options(tmp_path):
    rows = [
        {"id": "own", "question": "what is drawn?", "answer": "a square", "image": "one.png"},
        {"id": "side", "question": "which side?", "answer": "B", "options": ["left", "right"], "image": "one.png"},
    ]
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    own = with_pools(JsonlReader(str(tmp_path / "rows.jsonl")).read("train").questions)[0]
    prompts = []
    scorer(lambda prompt: prompts.append(prompt) or r"\boxed{1}").submit(own, ["a caption"], seed=1).result()
    [prompt] = [prompt for prompt in prompts if "which side?" in prompt]
    assert prompt.count("Options:") == 1
    assert [prompt.count(f". {option}") for option in ("left", "right", CANNOT_ANSWER)] == [1, 1, 1]


def test_the_mean_is_over_all_questions_and_the_first_is_the_captions_own(reader):
    plain = scorer(reader)
    each = [plain.submit(question, ["red round", "big"]).result() for question in (COLOR, SHAPE, SIZE)]
    rewards = over_questions(each)
    assert rewards.total == pytest.approx((2 / 3, 1 / 3))
    assert rewards.parts["correct"] == (1.0, 0.0)
    assert over_questions(each[:1]).total == each[0].total


def test_questions_share_the_images_that_they_name():
    other = replace(SIZE, id="other", images=(ImageRef(data=b"two"),))
    color, shape, alone = with_pools([COLOR, SHAPE, other])
    assert color.pool == (COLOR, SHAPE)
    assert shape.pool is color.pool  # one tuple, however many share a picture
    assert alone is other
    assert alone.pool == ()


def test_a_number_of_others_that_asks_none_is_refused(reader):
    with pytest.raises(SettingError, match="others=0, expected at least 1"):
        scorer(reader, others=0)
