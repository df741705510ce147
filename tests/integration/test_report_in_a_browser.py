"""The page of a test on a phone and on a wide screen: nothing stands outside the window."""

from __future__ import annotations

from dataclasses import replace

import pytest

from racro_pl.evaluation.report.html import write_report
from racro_pl.evaluation.results import System
from tests.unit.evaluation.test_report import item
from tests.unit.evaluation.toys import PLAIN, outcome, results

SYSTEMS = [
    System(captioner, "caption+tentative", reasoner)
    for captioner in ("before", "after training (CRO, 80 steps)")
    for reasoner in ("R1-7B", "Qwen3-30B-A3B-Thinking", "Skywork-OR1-32B", "a-reasoner-of-a-rather-long-name", "B")
]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1920, "dark")])
@pytest.mark.parametrize("systems", [2, 10])
def test_the_page_is_as_wide_as_the_window(tmp_path, browser, width, scheme, systems):
    found = {
        system: [outcome(str(row), row % 3 > 0, category="metric geometry - angle") for row in range(6)]
        for system in SYSTEMS[:systems]
    }
    long = replace(item("1"), categories={"category": "m" * 300})
    path = write_report(tmp_path, results(PLAIN, found, expected=6), [long, item("2", correct=False)])
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("#rows .row")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.click("#rows .row")
    chip = page.wait_for_selector(".chip")
    assert chip.evaluate("chip => chip.scrollWidth <= chip.parentElement.clientWidth")
    context.close()
