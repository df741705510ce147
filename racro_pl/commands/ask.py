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
from racro_pl.evaluation.outcomes import Mode
from racro_pl.evaluation.settings import (
    CaptionerSettings,
    ReasonerSettings,
    SamplingSettings,
    open_reasoner,
    short_name,
)
from racro_pl.evaluation.writers import Writer, open_writer
from racro_pl.images import image_size
from racro_pl.runs import versions
from racro_pl.terminal import Console
from racro_pl.text.answers import extract_answer, visible_text
from racro_pl.text.cleaning import clean_text
from racro_pl.text.printable import json_line
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages
from racro_pl.types import ImageRef, Question, RacroError

QUICKSTART = Path("runs/quickstart")
CAPTIONER = "embedded:figure-captioner"
REASONER = "embedded:figure-reasoner"


def main(arguments: list[str]) -> int:
    """Run ``ask``; returns the exit code."""
    options = _parse(arguments)
    quiet_libraries()
    console = Console(stderr=options.json)
    question = _question(options.words)
    captioner = options.captioner or default_captioner()
    if not options.captioner:
        console.print(f"[dim]captioner: {escape(captioner)}, which knows drawn figures only (--captioner chooses)[/]")
    sampling = SamplingSettings(options.temperature, max_tokens=options.max_tokens)
    reasoner = ReasonerSettings(open_reasoner(options.reasoner, sampling), short_name(options.reasoner))
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = CaptionerSettings(captioner, "captioner", max_new_tokens=options.max_tokens, model=options.model)
    writer = open_writer(settings, device)
    try:
        with console.status("loading ..."):
            reasoner.reasoner.check()
            writer.check()
        result = _answer(question, writer, reasoner, console, show=not options.json)
    finally:
        writer.close()
        reasoner.reasoner.close()
    if options.json:
        record = {"question": question.text, "images": [str(ref) for ref in question.images], "captioner": captioner,
                  "reasoner": options.reasoner, **result}  # fmt: skip
        print(json_line(record))
    return 0


def default_captioner() -> str:
    """The newest result of the quickstart below the current folder, else the embedded captioner as it comes."""
    finished = [folder for folder in versions(QUICKSTART) if has_result(folder)]
    return str(finished[-1]) if finished else CAPTIONER


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="racro-pl ask", usage='racro-pl ask IMAGE... "QUESTION" [options]', description=__doc__)
    parser.add_argument("words", nargs="+", metavar="IMAGE... QUESTION", help="image files, then the question")
    parser.add_argument(
        "--captioner", metavar="PATH", help="run folder, adapter, model folder or hub id, or a server's URL "
        "(default: the newest quickstart run here, else the embedded one)",
    )  # fmt: skip
    parser.add_argument("--model", help="the captioner's served name, with a URL that serves several")
    parser.add_argument("--reasoner", metavar="URL|PATH", default=REASONER, help="(default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.6, help="of the reasoner (default: %(default)s)")
    parser.add_argument("--max_tokens", type=int, default=2048, help="of each text (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if len(options.words) < 2:
        parser.error(f"got only {options.words[0]!r}; expected at least one image and the question after it")
    return options


def _question(words: list[str]) -> Question:
    *paths, text = words
    images = tuple(ImageRef(path=Path(path)) for path in paths)
    for image in images:
        image_size(image)  # a bad file is told before a model is loaded
    if not text.strip():
        raise RacroError("the question is empty; expected it in quotes after the images")
    # Bytes of the command line that are no UTF-8 come as halves of characters.
    return Question("ask", images, clean_text(text), answer="", answer_type="math")


def _answer(
    question: Question, writer: Writer, reasoner: ReasonerSettings, console: Console, show: bool
) -> dict[str, str | None]:
    texts: dict[str, str] = {}
    for task, title in (("caption", "caption"), ("tentative", "tentative answer")):
        with console.status(f"writing the {title} ..."):
            written = next(iter(writer.write([(question, task)])))  # type: ignore[list-item]
        if written.text is None:
            raise RacroError(f"the captioner wrote no {title}: {written.error}")
        if task == "caption" and written.only_thoughts:
            raise RacroError("the caption holds only an unfinished thought: raise --max_tokens")
        texts[task] = written.text
        _show(console, title, written.text, show)
    mode: Mode = "caption+tentative"
    messages = joint_messages(question.text, texts["caption"], texts["tentative"])
    if extract_answer(texts["tentative"]) is None:
        # Not an answer (an adapter trained on captions alone may forget how to give one): it would only mislead.
        mode = "caption"
        messages = reasoner_messages(question.text, texts["caption"])
        if show:
            console.print("[dim](no boxed answer in it: the reasoner reads the caption alone)[/]")
    with console.status(f"{reasoner.name} is thinking ..."):
        reply = reasoner.reasoner.submit([messages])[0].result()
    if reply.text is None:
        raise RacroError(f"the reasoner gave no answer: {reply.error}")
    answer = visible_text(reply.text).strip()
    _show(console, f"answer of {reasoner.name}", answer or reply.text.strip(), show)
    return {**texts, "mode": mode, "response": reply.text, "answer": extract_answer(reply.text)}


def _show(console: Console, title: str, text: str, show: bool) -> None:
    if show:
        console.print(Rule(escape(title), align="left", style="dim"))
        console.print(text or "(empty)", markup=False, highlight=False)
        sys.stdout.flush()
