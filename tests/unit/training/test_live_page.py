"""The page shows the run as it is, resumed runs whole, and texts as texts."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import pytest

from racro_pl.policy.captioner import Captioner
from racro_pl.training.callbacks.live_page import LivePage, axis, points, series, unbroken
from racro_pl.training.checkpointing.resume_logs import ContinuedCSVLogger
from racro_pl.types import Question, Rewards
from tests.unit.training.conftest import fit, make_module

EVIL = "<script>alert(1)</script> a red figure"


@pytest.fixture
def evil(monkeypatch):
    real = Captioner.generate

    def generate(self, prompts, group_size, *rest):
        made = real(self, prompts, group_size, *rest)
        return dataclasses.replace(made, texts=(EVIL,) * len(made.texts))

    monkeypatch.setattr(Captioner, "generate", generate)


def test_the_page_shows_steps_metrics_and_captions_as_text(folder, tmp_path, evil) -> None:
    logger = ContinuedCSVLogger(tmp_path, "run", "version_0", flush_logs_every_n_steps=1)
    fit(make_module(folder), tmp_path, steps=2, callbacks=[LivePage(every_s=0)], logger=logger, log_every_n_steps=1)
    page = (tmp_path / "run" / "version_0" / "live.html").read_text()
    assert "step 2 of 2, ended" in page
    assert 'http-equiv="refresh"' not in page, "an ended run's page does not renew itself"
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a red figure" in page
    assert "<script" not in page
    assert len(re.search(r'class="reward" points="([^"]+)"', page)[1].split()) == 2
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(?:src|href)=\"(?!data:)", page), "nothing is fetched"
    assert list((tmp_path / "run" / "version_0").glob(".live*")) == []


def test_a_page_of_a_running_run_renews_itself(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(LivePage, "on_train_end", lambda *args: None)
    fit(make_module(folder), tmp_path, steps=1, callbacks=[LivePage(every_s=0)])
    assert 'http-equiv="refresh" content="2"' in (tmp_path / "live.html").read_text()


ROWS = [{"step": "0", "x": "0.5"}, {"step": "1", "x": ""}, {"step": "2", "x": "nan"}, {"step": "3", "x": "1"}]


def test_a_line_breaks_at_steps_without_a_number() -> None:
    assert unbroken(series(ROWS, "x")) == [[(1, 0.5)], [(4, 1.0)]]
    assert unbroken(series([*ROWS[:2], *ROWS[3:]], "x")) == [[(1, 0.5), (4, 1.0)]]
    assert unbroken([]) == []


@pytest.mark.parametrize(
    ("values", "marks"),
    [([], [0, 0.5, 1]), ([0.2, 0.9], [0, 0.5, 1]), ([2.41, 1.31], [0, 1, 2, 3]), ([-2.2, 0.5], [-3, -2, -1, 0, 1]),
     ([900.0], [0, 256, 512, 768, 1024])],
)  # fmt: skip
def test_the_axis_goes_from_0_to_1_or_as_far_as_the_values(values, marks) -> None:
    assert axis(values) == marks


def test_values_lie_where_the_marks_say() -> None:
    assert points([(0, 0.0), (4, 1.0), (2, 0.5)], 4, [0.0, 0.5, 1.0]) == [(36.0, 200.0), (630.0, 20.0), (333.0, 110.0)]
    assert points([(0, -2.0), (4, 2.0)], 4, [-2.0, 0.0, 2.0]) == [(36.0, 200.0), (630.0, 20.0)]


def page(tmp_path, rewards, groups=()) -> str:
    """The page of a run with these mean rewards."""
    rows = "".join(f"{step},{reward}\n" for step, reward in enumerate(rewards))
    (tmp_path / "metrics.csv").write_text(f"step,reward/mean\n{rows}")
    trainer = SimpleNamespace(global_step=len(rewards), max_steps=9, callback_metrics={})
    module = SimpleNamespace(last_step=groups, first_role=lambda groups: groups)
    return LivePage()._page(trainer, module, tmp_path, ended=True)


def test_rewards_beyond_0_and_1_are_drawn_where_they_are(tmp_path) -> None:
    drawn = page(tmp_path, [1.31, 2.41, 2.25])
    assert 'class="reward" points="234.0,121.4 432.0,55.4 630.0,65.0"' in drawn
    assert re.findall(r'text-anchor="end">([-\d.]+)<', drawn) == ["0", "1", "2", "3"]
    assert 'class="reward" points="333.0,50.0 630.0,170.0"' in page(tmp_path, [0.5, -1.5])


def test_steps_without_a_reward_are_no_line_and_a_lone_step_is_a_dot(tmp_path) -> None:
    assert re.findall(r"<.*reward.*/>", page(tmp_path, [0.5])) == [
        '<circle class="reward" cx="630.0" cy="110.0" r="2"/>'
    ]
    drawn = page(tmp_path, [0.0, 1.0, "nan", 1.0, 0.0, "nan"])
    assert re.findall(r'class="reward" points="([^"]+)"', drawn) == ["135.0,200.0 234.0,20.0", "432.0,20.0 531.0,200.0"]
    assert "mean reward 0.000" in drawn


def test_right_answers_are_green_whatever_they_earn(tmp_path) -> None:
    question = Question("q", (), "how many ?", "3", "math")
    rollout = SimpleNamespace(question=question, texts=("a caption",))

    def group(total, parts):
        return rollout, Rewards((total,), parts, (True,), (None,), (("",),), (("2",),))

    groups = [group(1.1, {"correct": (0.0,)}), group(0.2, {"correct": (1.0,)}), group(0.9, {})]
    found = re.findall(r'<p class="(\w*)">2: reward ([\d.]+)</p>', page(tmp_path, [0.5], groups))
    assert found == [("bad", "1.1"), ("good", "0.2"), ("", "0.9")]
