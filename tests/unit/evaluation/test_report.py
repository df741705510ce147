"""The terminal table and the page: complete, escaped, self-contained, and fine with thousands of questions."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from rich.console import Console

from racro_pl.evaluation.paper import PAPER_ROWS
from racro_pl.evaluation.report.gallery import GalleryEntry, GalleryItem
from racro_pl.evaluation.report.table import ResultsView
from racro_pl.evaluation.results import System
from racro_pl.types import ImageRef
from tests.unit.evaluation.toys import DIRECT, PIPELINE, PLAIN, outcome, question, results

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'\u2028<!--\ud800 https://evil.example"
NASTY_SYSTEM = System(f"<b>{NASTY}", "caption", "[red]reasoner[/red]")


class Page(HTMLParser):
    """Elements of a page, and the text of its scripts by their id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self.text = ""
        self._script: str | None = None
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self._script = dict(attrs).get("id")
            self.scripts[self._script] = ""

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[self._script] += data
        elif self._inside == "style":
            self.style = data
        else:
            self.text += data


def example():
    found = {
        DIRECT: [outcome("1", True, category="maths"), outcome("2", False, None, category="maths")],
        PIPELINE: [outcome("1", True, category="maths"), outcome("2", True, category="maths")],
    }
    return results(PLAIN, found)


def entries(text="", correct=True):
    response = f"<think>long {text} thoughts</think>So A. {text}"
    return {
        DIRECT: GalleryEntry(None, None, None, None, None),
        PIPELINE: GalleryEntry(f"A caption {text}", f"A guess {text}", response, "A" + text, correct),
    }


def png(width=8, height=8):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def pixels(source):
    """What a browser shows of a picture's address."""
    kind, _, body = source.partition(";base64,")
    assert kind == "data:image/webp"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def item(name, **kwargs):
    asked = replace(question(name), images=(ImageRef(data=png()),))
    return GalleryItem("plain", asked, {"category": "maths"}, entries(**kwargs))


def render(view, width=100):
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(view)
    return console.export_text()


def test_the_table_shows_interval_notes_and_paper():
    text = render(ResultsView(replace(example(), paper=PAPER_ROWS)))
    assert re.search(r"base · direct +50\.0", text)
    assert "[0.0, 100.0]" in text
    assert "† 2/4" in text
    assert "∅ 50.0 %" in text
    assert "part of the split" in text
    # The paper has no such benchmark: no rows of it.
    assert "RACRO" not in text
    assert "+50.0 [0.0, +100.0]" in text
    assert re.search(r"exact p", text)
    assert re.search(r"\+50.0 \[0.0, \+100.0\] +1 +0 +1.000", text)


def test_the_papers_rows_stand_below_its_benchmarks():
    cells = tuple(replace(cell, benchmark="mmmu", title="MMMU") for cell in example().cells)
    text = render(ResultsView(replace(example(), cells=cells, paper=PAPER_ROWS)))
    assert re.search(r"Qwen2\.5-VL-7B \+ RACRO \(R1-32B\) +61\.1", text)
    assert "AVG" not in text


def test_benchmarks_that_do_not_fit_come_below():
    cells = [cell for cell in example().cells if cell.system == DIRECT]
    many = tuple(replace(cell, benchmark=f"b{i}", title=f"Bench{i}") for cell in cells for i in range(7))
    text = render(ResultsView(replace(example(), cells=many, comparisons=())), width=80)
    assert all(text.count(f"Bench{i}") == 1 for i in range(7))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("base · direct") == 3


def test_nothing_answered():
    assert "? 4" in render(ResultsView(results(PLAIN, {DIRECT: []}, unanswered=4)))


def test_markup_in_names_is_shown_as_it_is():
    text = render(ResultsView(results(PLAIN, {NASTY_SYSTEM: [outcome("1", True)]})), width=400)
    assert "[red]reasoner[/red]" in text
