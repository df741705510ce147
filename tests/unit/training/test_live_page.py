"""The page shows the run as it is, resumed runs whole, and texts as texts."""

from __future__ import annotations

import dataclasses
import re

import pytest

from racro_pl.policy.captioner import Captioner
from racro_pl.training.callbacks.live_page import LivePage, points, series
from racro_pl.training.checkpointing.resume_logs import ContinuedCSVLogger
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


def test_series_leave_out_what_is_no_number() -> None:
    rows = [{"step": "0", "x": "0.5"}, {"step": "1", "x": ""}, {"step": "2", "x": "nan"}, {"step": "3", "x": "1"}]
    assert series(rows, "x") == [(1, 0.5), (4, 1.0)]
    assert points([(0, 0.0), (4, 1.0), (2, 7.0)], 4) == [(36.0, 200.0), (630.0, 20.0), (333.0, 20.0)]
