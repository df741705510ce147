"""The caption sheet: long texts, options, several images, characters without a font, verdicts before and after."""

from __future__ import annotations

import pytest
from PIL import Image

from racro_pl.training.callbacks import pictures
from racro_pl.training.callbacks.learning_report import LearningReport
from racro_pl.training.callbacks.pictures import RIGHT, WRONG, draw_captions, draw_curve, missing_characters, wrap
from racro_pl.training.metrics.accuracy import Answered, Shown
from racro_pl.types import ImageRef, Question, Rewards


def answered(caption="a red circle", correct=1.0, images=1, text="what ?", choices=(), answer="red"):
    question = Question("q", (ImageRef(data=b""),) * images, text, answer, "text", choices)
    scored = correct is not None
    rewards = Rewards((correct or 0.0,), {"correct": (correct or 0.0,)}, (scored,), (None,), (("red",),), (("red",),))
    return Answered(question, caption, rewards, {})


def sheet(tmp_path, monkeypatch, items, before):
    """The figure, which is also drawn, and its file."""
    drawn, save = [], pictures._save
    monkeypatch.setattr(pictures, "_save", lambda figure, *rest: drawn.append(figure) or save(figure, *rest))
    images = [[Image.new("RGB", (40, 30), "red")] * len(item.question.images) for item in items]
    draw_captions(tmp_path / "captions.png", images, items, before)
    with Image.open(tmp_path / "captions.png") as image:
        assert image.width > 800
    return drawn[0]


def test_verdicts_before_and_after(tmp_path, monkeypatch):
    items = [answered(correct=1.0), answered(correct=0.0), answered(correct=None)]
    before = [Shown("blue", "blue", 0.0), Shown("red", None, 1.0), Shown("of release 0.1.0")]
    figure = sheet(tmp_path, monkeypatch, items, before)
    verdicts = [(text.get_text().split("→ ")[1], text.get_color()) for text in figure.texts if "→" in text.get_text()]
    assert verdicts == [
        ("wrong (blue)", WRONG), ("right (red)", RIGHT), ("right", RIGHT), ("wrong (red)", WRONG),
        ("no verdict", pictures._GREY), ("no verdict (red)", pictures._GREY),
    ]  # fmt: skip


def test_long_texts_options_and_images_stay_in_their_row(tmp_path, monkeypatch):
    choices = ("one " * 60, "two", "three", "four")
    items = [answered("word " * 2000, images=6, text="Which ? " * 50, choices=choices, answer="A"), answered()]
    figure = sheet(tmp_path, monkeypatch, items, [Shown("before " * 500), Shown("b")])
    assert len(figure.axes) == 4 + 1
    places = [text.get_position()[1] for text in figure.texts]
    assert places == sorted(places, reverse=True)
    renderer = figure.canvas.get_renderer()
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
    lines = [text.get_text() for text in figure.texts]
    assert sum(line.endswith("…") for line in lines) == 3
    assert "gold: A (6 images, 4 shown)" in lines


@pytest.mark.parametrize("text", ["图中圆形是什么颜色？", "赤い丸"])
def test_characters_without_a_font_are_told(tmp_path, monkeypatch, text, recwarn):
    fonts = [name for name in pictures._fonts() if name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(pictures, "_fonts", lambda: fonts)
    figure = sheet(tmp_path, monkeypatch, [answered(caption=text)], [Shown(text)])
    assert f"{len(missing_characters(text))} characters that no installed font has" in figure.texts[-1].get_text()
    assert missing_characters("red → é") == set()
    assert not [warning for warning in recwarn if "missing from" in str(warning.message)]


@pytest.mark.parametrize(
    ("reward", "low", "high", "label"),
    [
        ([0.2, 0.7], 0, 1.02, "share of right answers"),
        ([1.31, 2.41], 0, 2.4582, "mean reward, and share of right answers"),
        ([-1.0, float("nan"), 0.5], -1.04, 1.04, "mean reward, and share of right answers"),
    ],
)
def test_the_curve_shows_rewards_beyond_0_and_1(tmp_path, monkeypatch, reward, low, high, label):
    drawn = []
    monkeypatch.setattr(pictures, "_save", lambda figure, *rest: drawn.append(figure))
    draw_curve(tmp_path / "curve.png", [(0, 0.2)], list(enumerate(reward)))
    [axes] = drawn[0].axes
    assert axes.get_ylim() == pytest.approx((low, high))
    assert axes.get_ylabel() == label


def test_wide_characters_count_two_and_words_stay_whole():
    assert wrap("图中圆形" * 10, 20, 9) == ["图中圆形图中圆形图中", "圆形图中圆形图中圆形"] * 2
    assert wrap("a bb ccc\nd", 5, 9) == ["a bb", "ccc", "d"]
    assert wrap("x" * 12, 5, 2) == ["xxxxx", "xxxx…"]
    assert wrap("", 5, 2) == []


def test_captions_of_release_0_1_0_are_taken_up():
    report = LearningReport()
    asked = {"questions": 500, "sheet_images": 8, "reward": [], "accuracy": []}
    report.load_state_dict(asked | {"before": ({"accuracy": 0.5}, ["a caption"])})
    assert report.before == ({"accuracy": 0.5}, [Shown("a caption")])
    state = report.state_dict()
    assert state["before"][1] == [("a caption", None, None)]
    assert type(state["before"][1][0]) is tuple
    report.load_state_dict(state)
    assert report.before[1] == [Shown("a caption")]
