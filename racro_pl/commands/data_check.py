"""What ``racro-pl data check`` finds in a data set, and how it is shown."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from racro_pl.data.benchmarks import Benchmark, TableBenchmark
from racro_pl.data.readers.base import NAMED, Drops, look_at
from racro_pl.images import ImageError, image_size, open_image
from racro_pl.terminal import Console
from racro_pl.types import ImageRef, Question

CLASSES = 12
"""Classes of a breakdown that are listed."""
PREVIEW_CHARACTERS = 1500
SMALL_PIXELS = 28
"""A picture with a shorter side is smaller than one image token of the Qwen-VL models."""
_NAMED_IMAGE = re.compile(r"<image (\d{1,3})>")


def run_check(benchmark: Benchmark, path: str | None, split: str | None, console: Console) -> int:
    """Read a benchmark as a test would, and print what was found; returns the exit code."""
    drops = Drops(shown=0)  # the table names them
    if isinstance(benchmark, TableBenchmark):
        located = benchmark.locate(path, split)
        split = located.split
        source = ", ".join(short_path(file) for file in located.files[:2])
        if len(located.files) > 2:
            source += f", ... ({len(located.files)} files)"
        questions = benchmark.collect(located, drops)
        incomplete = benchmark.incomplete(questions)
    else:
        found = benchmark.read(path, split)
        questions, source, incomplete, split = found.questions, path or "drawn by the program", [], found.split
        drops.counts.update(found.dropped)
        drops.named.update({reason: list(rows) for reason, rows in found.named.items()})
    dropped = sum(drops.counts.values())
    expected = benchmark.splits[split].questions
    console.print(f"\n[bold]{benchmark.title}[/bold], split {split}: {escape(source)}\n", highlight=False)
    facts = {
        "rows": str(len(questions) + dropped),
        "questions": f"{len(questions)} of {expected} in the complete split" if expected else str(len(questions)),
        "left out": str(dropped),
        "repaired": str(len(drops.repaired)),
        "missing images": str(drops.counts["image file not found"] + drops.counts["no image"]),
        "images": _image_summary(questions),
        "answers": _counts(Counter(question.answer_type for question in questions)),
    }
    console.print(_facts_table(facts))
    if drops.counts:
        console.print(_problem_table("left out", drops.counts, drops.named))
    odd = odd_questions(questions)
    if incomplete:
        odd["group with questions missing"] = incomplete
    if odd:
        console.print(_problem_table("odd", {reason: len(ids) for reason, ids in odd.items()}, odd))
    _print_breakdowns(benchmark, questions, console)
    if not questions:
        console.print("[red bold]not usable[/red bold]: no question is left\n")
        return 1
    console.print(_preview(questions[0]))
    console.print(_verdict(len(questions), expected, dropped), highlight=False)
    return 0


def _verdict(found: int, expected: int, dropped: int) -> str:
    if not expected and not dropped:
        return "[green bold]usable[/green bold]\n"
    if found == expected and not dropped:
        return "[green bold]usable[/green bold]: the complete split\n"
    if found < expected:
        note = f"{expected - found} questions fewer than the complete split: not comparable with published scores"
    elif found > expected > 0:
        note = f"{found - expected} questions more than the complete split has"
    else:
        note = f"{dropped} rows left out"
    return f"[yellow bold]usable[/yellow bold], but {note}\n"


def odd_questions(questions: Sequence[Question]) -> dict[str, list[str]]:
    """Ids of questions that can be asked but look like a mistake in the file, by what is odd about them."""
    odd: dict[str, list[str]] = defaultdict(list)
    seen: set[tuple[str, bytes]] = set()
    texts = Counter(question.text for question in questions)
    for question in questions:
        if not question.category:
            odd["no category"].append(question.id)
        if len(set(question.choices)) < len(question.choices):
            odd["two options alike"].append(question.id)
        if any(int(number) > len(question.images) for number in _NAMED_IMAGE.findall(question.text)):
            odd["names an image that it has not"].append(question.id)
        if any(min(image_size(ref)) < SMALL_PIXELS for ref in question.images):
            odd[f"image side below {SMALL_PIXELS} pixels"].append(question.id)
        if texts[question.text] > 1:  # only then is it worth reading the images
            key = (question.text, b"".join(_digest(ref) for ref in question.images))
            if key in seen:
                odd["same text and images as another"].append(question.id)
            seen.add(key)
    # Reading a data set decodes headers alone.
    looked_at = look_at(questions, _fault_of_pixels, "decoding images")
    odd["image cannot be decoded"] = [f"{question.id}: {fault}" for question, fault in looked_at if fault]
    return {reason: ids for reason, ids in odd.items() if ids}


def _fault_of_pixels(question: Question) -> str:
    try:
        for ref in question.images:
            open_image(ref)
    except ImageError as error:
        return str(error)
    return ""


def _digest(ref: ImageRef) -> bytes:
    return hashlib.blake2b(ref.path.read_bytes() if ref.path else ref.data or b"", digest_size=16).digest()


# ------------------------------------------------------------------ how it looks


def _facts_table(facts: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


def _image_summary(questions: Sequence[Question]) -> str:
    sizes = [image_size(ref) for question in questions for ref in question.images]
    if not sizes:
        return "0"
    sizes.sort(key=lambda size: size[0] * size[1])
    middle = statistics.median_low(range(len(sizes)))
    low, mid, high = (f"{width}x{height}" for width, height in (sizes[0], sizes[middle], sizes[-1]))
    several = sum(len(question.images) > 1 for question in questions)
    note = f"; {several} questions have several" if several else ""
    return f"{len(sizes)} (smallest {low}, median {mid}, largest {high}{note})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def _problem_table(title: str, counts: Mapping[str, int], named: Mapping[str, Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, style="yellow")
    table.add_column("rows", justify="right")
    table.add_column("the first of them", overflow="fold")
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        first = named.get(reason, ())[:NAMED]
        separator = "\n" if any(" " in name for name in first) else ", "
        more = f"{separator}..." if count > NAMED and first else ""
        table.add_row(reason, str(count), escape(separator.join(first)) + more)
    return table


def _print_breakdowns(benchmark: Benchmark, questions: Sequence[Question], console: Console) -> None:
    breakdowns: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        for name, value in benchmark.categories(question).items():
            breakdowns[name][value] += 1
    if not breakdowns:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("breakdown", no_wrap=True)
    table.add_column("questions in each class")
    for name, classes in breakdowns.items():
        rest = len(classes) - CLASSES
        listed = _counts(dict(classes.most_common(CLASSES))) + (f", {rest} more classes" if rest > 0 else "")
        table.add_row(name, escape(listed))
    console.print(table)


def _preview(question: Question) -> Panel:
    sizes = ", ".join("{}x{}".format(*image_size(ref)) for ref in question.images)
    text = question.text
    if len(text) > PREVIEW_CHARACTERS:
        text = text[:PREVIEW_CHARACTERS] + " ..."
    return Panel(
        f"[dim]image {sizes}[/dim]\n{escape(text)}\n[dim]answer[/dim] {escape(question.answer)} "
        f"[dim]({question.answer_type})[/dim]",
        title=f"question {escape(question.id)}, as it is asked",
        title_align="left",
        box=box.ROUNDED,
        border_style="dim",
    )


def short_path(path: Path) -> str:
    """A path with ``~`` for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
