"""The gallery's data: a short index of all questions, and chunks with its texts and pictures.

Seven whole benchmarks are 13,000 questions and some 200 MB of pictures: too much for one page. So the page carries
the index, which is all that listing, filtering and searching need, and a question's chunk comes when it is looked at.
Up to ``SINGLE_FILE_BYTES`` in all, the chunks are inside the page, as inert JSON that is parsed on demand: one file
to send around. Beyond that they are ``report_files/chunk-<k>.js`` beside it: scripts and not JSON, because a page
opened from ``file://`` may load scripts but not fetch. Pictures are inside the chunks in both cases: lazy for free,
and a folder of a hundred files instead of thirteen thousand.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from racro_pl.evaluation.report.thumbnails import picture
from racro_pl.evaluation.results import System
from racro_pl.files import write_atomically
from racro_pl.images import ImageError
from racro_pl.text.answers import THINK_CLOSE, THINK_OPEN, visible_text
from racro_pl.text.captioner_prompt import IMAGE_TAG
from racro_pl.text.printable import printable
from racro_pl.types import ImageRef, Question

SINGLE_FILE_BYTES = 20_000_000
"""Largest sum of chunks that goes into the page itself."""
FOLDER = "report_files"
MAX_TEXT = 12_000
"""Characters of one caption or answer that the page shows; a thought that ran to the length limit has 30,000."""
_INDEX_TEXT = 600
"""Characters of a question that search looks at."""
_INDEX_ANSWER = 80
_CHUNK_BYTES = 1_500_000
_CHUNK_QUESTIONS = 100
_BATCH = 64
"""Questions whose pictures are made at once, on two threads (Pillow works outside the interpreter lock)."""


@dataclass(frozen=True)
class GalleryEntry:
    """What one system made of one question. None where the mode has no such stage or nothing came."""

    caption: str | None
    tentative: str | None
    response: str | None
    """The reasoner's whole text, thinking included; in mode ``direct`` the captioner's."""
    extracted: str | None
    correct: bool | None
    """None when unanswered."""


@dataclass(frozen=True)
class GalleryItem:
    """One question with what every system made of it."""

    benchmark: str
    """Name, as in the results."""
    question: Question
    categories: Mapping[str, str]
    """Breakdown to class, as :meth:`Benchmark.categories` gives it."""
    entries: Mapping[System, GalleryEntry]


@dataclass
class Gallery:
    """What :func:`build_gallery` leaves for the page."""

    index: list[dict[str, Any]] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    """The chunks as JSON; empty when they are in the folder."""
    external: bool = False


def build_gallery(folder: Path, items: Iterable[GalleryItem], benchmarks: list[str], systems: list[System]) -> Gallery:
    """Read the items once, in bounded memory, and write the chunks below ``folder`` if they are many.

    Args:
        folder: where the page will be; chunks of an earlier report there are removed.
        items: the questions, in the order to show them in.
        benchmarks: names, in the page's order.
        systems: in the page's order.
    """
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    gallery = Gallery()
    writer = _ChunkWriter(folder / FOLDER, gallery)
    for item, pictures in _with_pictures(items):
        chunk, place = writer.add(_record(item, pictures, systems))
        gallery.index.append(_index_entry(item, benchmarks, systems) | {"k": chunk, "o": place})
    writer.flush()
    return gallery


def script_json(value: Any) -> str:
    """JSON that may stand inside a ``<script>`` element, whatever the texts contain, and shows them printable."""
    text = json.dumps(_shown(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # "</script" and "<!--" would end or upset the element.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return {_shown(key): _shown(item) for key, item in value.items()} if isinstance(value, dict) else value


class _ChunkWriter:
    """Collects records to chunks; keeps those in memory while they are few, and moves them to files when not."""

    def __init__(self, folder: Path, gallery: Gallery) -> None:
        self.folder = folder
        self.gallery = gallery
        self.records: list[str] = []
        self.chunk_bytes = self.total = self.chunks = 0

    def add(self, record: dict[str, Any]) -> tuple[int, int]:
        """Number of the record's chunk, and its place there."""
        text = script_json(record)
        if self.records and (len(self.records) == _CHUNK_QUESTIONS or self.chunk_bytes + len(text) > _CHUNK_BYTES):
            self.flush()
        self.records.append(text)
        self.chunk_bytes += len(text)
        return self.chunks, len(self.records) - 1

    def flush(self) -> None:
        if not self.records:
            return
        text = f"[{','.join(self.records)}]"
        self.total += len(text)
        if not self.gallery.external and self.total > SINGLE_FILE_BYTES:
            self.folder.mkdir(parents=True)
            self.gallery.external = True
            for number, earlier in enumerate(self.gallery.inline):
                self._write(number, earlier)
            self.gallery.inline = []
        if self.gallery.external:
            self._write(self.chunks, text)
        else:
            self.gallery.inline.append(text)
        self.records, self.chunk_bytes = [], 0
        self.chunks += 1

    def _write(self, number: int, text: str) -> None:
        content = f"racroChunk({number},{text});\n"
        write_atomically(self.folder / f"chunk-{number}.js", content, owner_only=True)


def _with_pictures(items: Iterable[GalleryItem]) -> Iterator[tuple[GalleryItem, list[dict[str, Any]]]]:
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=2) as pool:
        while batch := list(islice(iterator, _BATCH)):
            yield from zip(batch, pool.map(_pictures, batch), strict=True)


def _pictures(item: GalleryItem) -> list[dict[str, Any]]:
    return [_picture(ref) for ref in item.question.images]


def _picture(ref: ImageRef) -> dict[str, Any]:
    try:
        return picture(ref)
    except ImageError as error:
        # The report is about answers: a picture that has gone since is said in its place and stops nothing.
        return {"problem": str(error)[:300]}


def _record(item: GalleryItem, pictures: list[dict[str, Any]], systems: list[System]) -> dict[str, Any]:
    question = item.question
    gold = question.answer
    if question.answer_type == "choice" and len(gold) == 1 and 0 <= ord(gold) - 65 < len(question.choices):
        option = question.choices[ord(gold) - 65]
        gold = gold if option.strip() in ("", gold) else f"{gold} · {option}"
    # Systems with one captioner share its texts.
    texts: dict[tuple[str, str, str], None] = {}
    for system in systems:
        entry = item.entries.get(system)
        for kind in ("caption", "tentative"):
            if entry is not None and (text := getattr(entry, kind)) is not None:
                texts[system.captioner, kind, text] = None
    return {
        "text": _cut(_without_first_tags(question.text)),
        "gold": gold,
        "cats": [f"{breakdown}: {name}" for breakdown, name in item.categories.items()],
        "pics": pictures,
        "seen": [{"by": by, "kind": kind, "text": _cut(text)} for by, kind, text in texts],
        "answers": [_answer(item.entries.get(system)) for system in systems],
    }


def _without_first_tags(text: str) -> str:
    """A question without the places of its images before its words: the page shows them beside it anyway."""
    return re.sub(rf"^(\s*{IMAGE_TAG})+\s*", "", text)


def _answer(entry: GalleryEntry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    response = entry.response
    if response is None:
        return {"x": None, "thinking": "", "said": None}
    visible = visible_text(response) if THINK_OPEN in response or THINK_CLOSE in response else response
    place = response.rfind(visible) if visible else len(response)
    thinking = response[:place] + response[place + len(visible) :]
    thinking = thinking.strip().removesuffix(THINK_CLOSE).removeprefix(THINK_OPEN)
    return {"x": entry.extracted, "thinking": _cut(thinking.strip()), "said": _cut(visible.strip())}


def _index_entry(item: GalleryItem, benchmarks: list[str], systems: list[System]) -> dict[str, Any]:
    question = item.question
    extracted = {entry.extracted for entry in item.entries.values() if entry.extracted is not None}
    return {
        "i": question.id,
        "b": benchmarks.index(item.benchmark),
        "c": [f"{breakdown}: {name}" for breakdown, name in item.categories.items()],
        "v": "".join(_verdict(item.entries.get(system)) for system in systems),
        "t": " ".join(_without_first_tags(question.text).split())[:_INDEX_TEXT],
        "a": [text[:_INDEX_ANSWER] for text in (question.answer, *sorted(extracted))],
    }


def _verdict(entry: GalleryEntry | None) -> str:
    """``r`` right, ``w`` wrong, ``x`` wrong for want of an extracted answer, ``u`` unanswered, ``-`` not asked."""
    if entry is None:
        return "-"
    if entry.correct is None:
        return "u"
    if entry.correct:
        return "r"
    return "w" if entry.extracted is not None else "x"


def _cut(text: str) -> str:
    """Long texts without their middle: how they begin and how they end is what tells."""
    if len(text) <= MAX_TEXT:
        return text
    head = MAX_TEXT * 2 // 3
    tail = MAX_TEXT - head
    return f"{text[:head]}\n\n[… {len(text) - MAX_TEXT:,} characters left out here …]\n\n{text[-tail:]}"
