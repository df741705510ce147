"""The report: ``report.html``, which opens from ``file://`` and asks nothing of the network.

Questions, captions and answers are other people's and models' text. The fixed parts are Jinja templates that escape
every value; in the gallery texts are JSON that the script puts into text nodes. A content policy enforces that: the
only script and style that run are the page's own, by their hash, with what that script loads from the folder beside
the page; pictures come from ``data:`` addresses alone, and nothing else may be loaded, sent or embedded.

A large report has a folder ``report_files`` beside the page (see :mod:`.gallery`): keep the two together.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from racro_pl.evaluation.report import sections
from racro_pl.evaluation.report.gallery import FOLDER, Gallery, GalleryItem, build_gallery, script_json
from racro_pl.evaluation.results import Results
from racro_pl.files import write_atomically
from racro_pl.text.printable import printable

FILE = "report.html"


def write_report(folder: Path, results: Results, gallery: Iterable[GalleryItem]) -> Path:
    """Write ``report.html``, and ``report_files/`` beside it when the pictures and texts exceed 20 MB.

    Args:
        folder: where to; an earlier report there is replaced.
        results: scores and comparisons.
        gallery: the questions in the order to show them in, read once; empty for a page without gallery.

    Returns:
        The page's path.

    Raises:
        ValueError: the gallery has a question of a benchmark that the results do not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    built = build_gallery(folder, gallery, list(results.benchmarks), list(results.systems))
    path = folder / FILE
    write_atomically(path, _page(results, built), owner_only=True)
    return path


def _page(results: Results, gallery: Gallery) -> str:
    style, script = _asset("style.css"), _asset("script.js")
    index = {
        "systems": [{"label": system.label, "captioner": system.captioner} for system in results.systems],
        "benchmarks": [{"name": name, "title": title} for name, title in results.benchmarks.items()],
        "questions": gallery.index,
        "folder": FOLDER if gallery.external else None,
    }
    templates = Environment(
        loader=FunctionLoader(_asset), autoescape=True, finalize=_printable, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return templates.get_template("report.html.j2").render(
        sections.context(results),
        policy=_policy(style, script),
        index=script_json(index),
        chunks=gallery.inline,
        style=style,
        script=script,
    )


def _printable(value: object) -> object:
    """Every value that a template shows, before it is escaped; markup that a template made stays as it is."""
    return value if isinstance(value, Markup) else printable(str(value), lines=True)


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        # strict-dynamic: what the page's own script loads may run too; that is how chunks come in from file://,
        # where 'self' means nothing.
        f"default-src 'none'; script-src {digest(script)} 'strict-dynamic'; style-src {digest(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
