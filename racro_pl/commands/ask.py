"""``racro-pl ask IMAGE... "QUESTION"``: caption, tentative answer and the reasoner's answer, as they come."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.markup import escape
from rich.rule import Rule

from racro_pl.commands.quiet import quiet_libraries
from racro_pl.commands.suggestions import CommandParser
from racro_pl.evaluation.captioner_source import has_result
from racro_pl.pipeline import (
    EMBEDDED_CAPTIONER,
    EMBEDDED_REASONER,
    Answer,
    Part,
    Pipeline,
    joined,
    question_of,
    reads_tentative,
)
from racro_pl.runs import versions
from racro_pl.terminal import Console
from racro_pl.text.answers import visible_text
from racro_pl.text.printable import json_line
from racro_pl.types import Question

QUICKSTART = Path("runs/quickstart")


def main(arguments: list[str]) -> int:
    """Run ``ask``; returns the exit code."""
    options = _parse(arguments)
    quiet_libraries()
    console = Console(stderr=options.json)
    *paths, text = options.words
    question = question_of([Path(path) for path in paths], text)
    captioner = options.captioner or default_captioner()
    reasoner = options.reasoner or EMBEDDED_REASONER
    for name, model in (("captioner", captioner), ("reasoner", reasoner)):
        if not getattr(options, name):
            remark = f"[dim]{name}: {escape(model)}, which knows drawn figures only (--{name} chooses)[/]"
            Console(stderr=True).print(remark)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    settings = {"temperature": options.temperature, "max_tokens": options.max_tokens, "model": options.model}
    with Pipeline(captioner, reasoner, **settings) as pipeline:
        with console.status("loading ..."):
            pipeline.check()
        answer = _answer(pipeline, question, console, show=not options.json)
    if options.json:
        record = {"question": question.text, "images": [str(ref) for ref in question.images], "captioner": captioner,
                  "reasoner": reasoner, "caption": answer.caption, "tentative": answer.tentative,
                  "mode": answer.mode, "response": answer.response, "answer": answer.answer}  # fmt: skip
        print(json_line(record))
    return 0


def default_captioner() -> str:
    """The newest result of the quickstart below the current folder, else the embedded captioner as it comes."""
    finished = [folder for folder in versions(QUICKSTART) if has_result(folder)]
    return str(finished[-1]) if finished else EMBEDDED_CAPTIONER


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="racro-pl ask", usage='racro-pl ask IMAGE... "QUESTION" [options]', description=__doc__)
    parser.add_argument("words", nargs="+", metavar="IMAGE... QUESTION", help="image files, then the question")
    parser.add_argument(
        "--captioner", metavar="PATH", help="run folder, adapter, model folder or hub id, or a server's URL "
        "(default: the newest quickstart run here, else the embedded one)",
    )  # fmt: skip
    parser.add_argument("--model", help="the captioner's served name, with a URL that serves several")
    parser.add_argument("--reasoner", metavar="URL|PATH", help=f"(default: {EMBEDDED_REASONER})")
    parser.add_argument(
        "--temperature", type=float, default=0.6,
        help="of the reasoner; an embedded one is always greedy (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--max_tokens", type=int, default=2048, help="of each text (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if len(options.words) < 2:
        parser.error(f"got only {options.words[0]!r}; expected at least one image and the question after it")
    return options


def _answer(pipeline: Pipeline, question: Question, console: Console, show: bool) -> Answer:
    """Every text, shown as soon as it is there."""
    titles = {"caption": "caption", "tentative": "tentative answer", "response": f"answer of {pipeline.reasoner_name}"}
    texts = pipeline.parts(question)
    parts: list[Part] = []
    for title in titles.values():
        with console.status(f"writing the {title} ..."):
            parts.append(next(texts))
        if show:
            _show(console, title, visible_text(parts[-1].text).strip() or parts[-1].text.strip())
            if parts[-1].name == "tentative" and not reads_tentative(parts[-1].text):
                console.print("[dim](no boxed answer in it: the reasoner reads the caption alone)[/]")
    return joined(parts)


def _show(console: Console, title: str, text: str) -> None:
    console.print(Rule(escape(title), align="left", style="dim"))
    console.print(text or "(empty)", markup=False, highlight=False)
    sys.stdout.flush()
