"""The page of a test: sealed, escaped, and with the pixels that the model saw."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image

from racro_pl.evaluation.report import gallery as gallery_module
from racro_pl.evaluation.report.gallery import MAX_TEXT, GalleryEntry, GalleryItem
from racro_pl.evaluation.report.html import write_report
from racro_pl.evaluation.report.table import ResultsView
from racro_pl.evaluation.report.thumbnails import picture
from racro_pl.evaluation.results import System
from racro_pl.images import ImageError, open_image
from racro_pl.text.printable import printable
from racro_pl.types import ImageRef
from tests.unit.evaluation.test_report import NASTY, NASTY_SYSTEM, Page, entries, example, item, pixels, png, render
from tests.unit.evaluation.toys import DIRECT, PLAIN, WORST, outcome, question, results


def test_the_page_parses_and_is_sealed(tmp_path):
    path = write_report(tmp_path, example(), [item("1"), item("2", correct=False)])
    assert path == tmp_path / "report.html"
    text = path.read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "http:" not in text
    assert "https:" not in text
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base")
        assert "style" not in attributes, (tag, "the policy forbids style attributes")
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "").startswith("data:") or "src" not in attributes
        assert (attributes.get("href") or "#").startswith(("#", "data:"))
    [policy] = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[None].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'")
    assert "innerHTML" not in page.scripts[None]


def test_the_page_holds_what_the_gallery_needs(tmp_path):
    page = Page(write_report(tmp_path, example(), [item("1"), item("2", correct=False)]).read_text())
    index = json.loads(page.scripts["index"])
    assert index["folder"] is None
    assert [entry["v"] for entry in index["questions"]] == ["ur", "uw"]
    assert index["questions"][0]["c"] == ["category: maths"]
    [first, _] = json.loads(page.scripts["chunk-0"])
    assert first["gold"] == "A · one"
    assert first["seen"] == [
        {"by": "base", "kind": "caption", "text": "A caption "},
        {"by": "base", "kind": "tentative", "text": "A guess "},
    ]
    assert first["answers"] == [
        {"x": None, "thinking": "", "said": None},
        {"x": "A", "thinking": "long  thoughts", "said": "So A."},
    ]
    assert pixels(first["pics"][0]["src"]).tolist() == [[[255, 0, 0]] * 8] * 8
    # Scores, category and comparison are in the page without any script.
    assert "50.0[0.0, 100.0]† 2/4∅ 50.0 %" in page.text
    assert "maths" in page.text
    assert "+50.0 [0.0, +100.0]" in page.text


def test_image_tags_before_a_question_are_not_shown(tmp_path):
    asked = replace(question("1"), text="<image> <image>\nIs <image> like the first?")
    shown = GalleryItem("plain", asked, {}, entries())
    page = Page(write_report(tmp_path, example(), [shown]).read_text())
    [record] = json.loads(page.scripts["chunk-0"])
    [entry] = json.loads(page.scripts["index"])["questions"]
    assert record["text"] == entry["t"] == "Is <image> like the first?"


def test_every_text_is_escaped(tmp_path):
    found = {NASTY_SYSTEM: [outcome("1", True, category=NASTY)], DIRECT: [outcome("1", False, category=NASTY)]}
    made = replace(results(PLAIN, found), name=NASTY, settings={NASTY: [NASTY]})
    asked = replace(question(NASTY), text=NASTY, answer=NASTY)
    answers = {NASTY_SYSTEM: GalleryEntry(NASTY, NASTY, NASTY, NASTY, False)}
    path = write_report(tmp_path, made, [GalleryItem("plain", asked, {NASTY: NASTY}, answers)])
    page = Page(path.read_text(encoding="utf-8"))
    assert set(page.scripts) == {"index", "chunk-0", None}
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [a for _, a in page.tags if "onerror" in a]
    assert "alert(1)</script>" in page.text
    clean = printable(NASTY, lines=True)
    [record] = json.loads(page.scripts["chunk-0"])
    assert record["text"] == record["seen"][0]["text"] == record["answers"][0]["said"] == clean
    assert json.loads(page.scripts["index"])["questions"][0]["v"] == "w-"


def test_an_unfinished_thought_and_a_long_text(tmp_path):
    texts = [("<think>never ends", ("never ends", "")), ("no thought", ("", "no thought"))]
    texts.append(("</think>x</think> y", ("</think>x", "y")))
    for response, expected in texts:
        made = gallery_module._answer(GalleryEntry(None, None, response, None, False))
        assert (made["thinking"], made["said"]) == expected
    long = gallery_module._answer(GalleryEntry(None, None, "a" * 50_000 + "end", None, False))["said"]
    assert len(long) < MAX_TEXT + 100
    assert long.endswith("end")
    assert "38,003 characters left out here" in long


def test_three_thousand_questions(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_module, "SINGLE_FILE_BYTES", 1_000_000)
    start = time.process_time()
    path = write_report(tmp_path, example(), (item(str(i), text="word " * 40) for i in range(3000)))
    assert time.process_time() - start < 30
    # The index alone: some 300 bytes a question.
    assert path.stat().st_size < 1_500_000
    chunks = sorted((tmp_path / "report_files").iterdir())
    assert len(chunks) == 30
    index = json.loads(Page(path.read_text()).scripts["index"])
    assert index["folder"] == "report_files"
    last = index["questions"][-1]
    text = (tmp_path / "report_files" / f"chunk-{last['k']}.js").read_text()
    records = json.loads(text[len(f"racroChunk({last['k']},") : -len(");\n")])
    assert records[last["o"]]["text"] == "What is 2999?"
    # A small report in the same place leaves nothing of the large one.
    write_report(tmp_path, example(), [item("1")])
    assert not (tmp_path / "report_files").exists()


def test_large_chunks_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_module, "_CHUNK_BYTES", 2_000)
    page = Page(write_report(tmp_path, example(), [item(str(i), text="x" * 500) for i in range(4)]).read_text())
    assert [(e["k"], e["o"]) for e in json.loads(page.scripts["index"])["questions"]] == [
        (0, 0), (1, 0), (2, 0), (3, 0),
    ]  # fmt: skip


def test_pages_without_gallery_comparison_or_headline(tmp_path):
    text = write_report(tmp_path, results(WORST, {DIRECT: []}, unanswered=4), []).read_text()
    assert "nothing to compare" in Page(text).text
    assert "? 4" in Page(text).text


def photo(tmp_path):
    """A JPEG that is stored lying on its side, with a maker's note in its metadata."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "SENTINEL-CAMERA"
    exif[ExifTags.Base.Artist] = "SENTINEL-OWNER"
    stored = Image.new("RGB", (60, 40), "white")
    stored.paste("red", (0, 0, 30, 40))
    stored.save(tmp_path / "photo.jpg", exif=exif, comment=b"SENTINEL-COMMENT", icc_profile=b"SENTINEL-PROFILE")
    return ImageRef(path=tmp_path / "photo.jpg")


def grey(tmp_path):
    Image.fromarray(np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)).save(tmp_path / "grey.png")
    return ImageRef(path=tmp_path / "grey.png")


@pytest.mark.parametrize("make", [photo, grey])
def test_the_page_shows_the_pixels_that_the_model_saw(tmp_path, make):
    ref = make(tmp_path)
    for each in (ref, ImageRef(data=ref.path.read_bytes())):
        assert np.array_equal(pixels(picture(each)["src"]), np.asarray(open_image(each)))


def test_no_metadata_of_a_picture_travels_into_the_page(tmp_path):
    data = photo(tmp_path).path.read_bytes()
    assert data.count(b"SENTINEL") == 4
    # Small, large and scaled down.
    for side in (40, 400, 1000):
        image = Image.open(io.BytesIO(data))
        image.resize((side, side)).save(tmp_path / "kept.jpg", exif=image.getexif(), comment=b"SENTINEL-COMMENT")
        asked = replace(question("1"), images=(ImageRef(path=tmp_path / "kept.jpg"), ImageRef(data=data)))
        page = Page(write_report(tmp_path, example(), [GalleryItem("plain", asked, {}, entries())]).read_text())
        for shown in json.loads(page.scripts["chunk-0"])[0]["pics"]:
            assert b"SENTINEL" not in base64.b64decode(shown["src"].partition(",")[2])


def test_a_missing_picture_is_said_in_its_place(tmp_path):
    asked = replace(question("1"), images=(ImageRef(path=tmp_path / "gone.png"),))
    page = Page(write_report(tmp_path, example(), [GalleryItem("plain", asked, {}, entries())]).read_text())
    assert "image file not found" in json.loads(page.scripts["chunk-0"])[0]["pics"][0]["problem"]


def test_pictures_are_scaled_down(tmp_path):
    noise = Image.effect_noise((1600, 800), 80).convert("RGB")
    noise.save(tmp_path / "noise.png")
    small = picture(ImageRef(path=tmp_path / "noise.png"))
    assert (small["w"], small["h"]) == (768, 384)
    assert small["src"].startswith("data:image/webp;base64,")
    # Small in bytes, but large in pixels: scaled too.
    assert picture(ImageRef(data=png(2000, 1000)))["w"] == 768
    with pytest.raises(ImageError):
        picture(ImageRef(data=b"no picture"))


@pytest.mark.parametrize("width", [60, 80])
def test_tables_are_legible_at_narrow_widths(width):
    systems = [System(name, "caption", "Qwen3-8B") for name in ("before", "after-long-run-name-lr2e-3")]
    found = [outcome("1", True), outcome("2", False)]
    one = results(PLAIN, dict.fromkeys(systems, found), expected=4000, unanswered=3)
    names = ("MathVista", "MathVision", "MathVerse", "DynaMath (worst case)")
    cells = tuple(replace(cell, benchmark=name, title=name) for name in names for cell in one.cells)
    comparisons = tuple(replace(one.comparisons[0], benchmark=name, title=name) for name in names[:3])
    text = render(ResultsView(replace(one, cells=cells, comparisons=comparisons)), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(text.count(name) == 2 for name in names[:3])  # a headline each, and a comparison, unbroken
    assert text.count("0.0 [\N{MINUS SIGN}84.2, +84.2]") == 3  # 1 - 0.025 ** (1 / 2): two questions say little
    assert text.count("part of the split") == 1


def test_twenty_systems_have_a_mark_each_and_their_names_in_the_charts(tmp_path):
    systems = [System(f"run-{number:02}", "direct", None) for number in range(20)]
    write_report(tmp_path, results(PLAIN, dict.fromkeys(systems, [outcome("1", True)])), [])
    text = (tmp_path / "report.html").read_text()
    marks = re.findall(r"<li><svg class=dot [^>]*>(.*?)</svg>", text)
    assert len(marks) == len(set(marks)) == 20
    assert re.findall(r"<text class=system [^>]*>(run-\d\d) · direct</text>", text) == [s.captioner for s in systems]
