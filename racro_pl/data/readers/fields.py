"""Rules for the fields of a row that readers share: images and their tags, options, answers, held-out shares."""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from racro_pl.data.readers.base import MAX_IMAGES, RowError, Split
from racro_pl.text.answers import unbox
from racro_pl.text.captioner_prompt import IMAGE_TAG
from racro_pl.text.choices import LETTERS, choice_letter
from racro_pl.text.cleaning import REPLACEMENT, clean
from racro_pl.text.latex import normalize, restore_backslashes
from racro_pl.types import AnswerType, ImageRef, RacroError

_TAG = re.compile(r"<image[ _]?(\d{0,3})>")
_LABEL = re.compile(r"(?<![A-Za-z0-9])[(\[]?([A-H])\s*[.:)\]、．:]")
_LONE_LETTER = re.compile(r"[(\[]?\s*([A-H])\s*[)\]]?\.?")


MAX_LITERAL_CHARACTERS = 20_000
"""Longest Python list written as text that is parsed."""
MAX_NAME_BYTES = 255
"""Of a file or folder, as file systems have it; longer ones are images as text, or mistakes."""


# ------------------------------------------------------------------ columns


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, blank text, or a list or object of nothing else."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, Mapping):
        return all(is_blank(item) for item in value.values())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return all(is_blank(item) for item in value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def first_filled(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """What the first of these columns that is not blank holds; where all are, the first that is not null, or None."""
    values = [row[column] for column in columns if row.get(column) is not None]
    return next((value for value in values if not is_blank(value)), values[0] if values else None)


def read_literal(text: str) -> Any:
    """A Python or JSON list or object written as text.

    Raises:
        RowError: it is too long, or no literal.
    """
    if len(text) > MAX_LITERAL_CHARACTERS:
        raise RowError("list too long", f"{len(text)} characters, the limit is {MAX_LITERAL_CHARACTERS}")
    try:
        return clean(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise RowError("list cannot be read", f"{text!r:.60}") from error


# ------------------------------------------------------------------ images


def image_refs(value: Any, root: Path) -> tuple[ImageRef, ...]:
    """A row's image column (one path or a list of paths, relative to ``root``) as references.

    Raises:
        RowError: no image, too many, something that is not a path, or a path that leads out of ``root``.
    """
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        value = read_literal(value.strip())  # tables have no lists: "['a.png', 'b.png']"
    paths = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    if is_blank(paths):
        raise RowError("no image")
    if len(paths) > MAX_IMAGES:
        raise RowError(f"more than {MAX_IMAGES} images", str(len(paths)))
    return tuple(ImageRef(path=root / _inside(path)) for path in paths)


def _inside(path: Any) -> str:
    if not isinstance(path, str) or not path or "\0" in path:
        raise RowError("image path is not a path", repr(path)[:80])
    if any(len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for part in path.split("/")):
        raise RowError("image path is not a path", f"a name of more than {MAX_NAME_BYTES} bytes: {path[:40]!r}")
    # A data file may come from anywhere: it must not make us open files elsewhere. (Links that the user has put
    # below the folder are the user's own choice.)
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor or ".." in re.split(r"[\\/]", path):
        raise RowError("image path leads out of the image folder", repr(path)[:80])
    return path


def place_images(text: str, images: tuple[ImageRef, ...]) -> tuple[str, tuple[ImageRef, ...]]:
    """Text with exactly one ``<image>`` tag per image, and the images in the order of their tags.

    - As many ``<image>`` tags as images: kept as they are.
    - Numbered tags (``<image1>``, ``<image 2>``) that name every image: the first mention of a number becomes the
      place of that image; later mentions stay, as names.
    - No tags: one tag per image goes before the text. (The reference implementation puts one tag, however many
      images there are.)
    - Tags that fit no other way: plain ones are taken out, and all images go before the text. Numbered ones stay,
      as names: data sets that join several pictures in one file draw these names beside them.
    """
    numbers = [int(number) for number in _TAG.findall(text) if number]
    plain = text.count(IMAGE_TAG)
    if plain == len(images) and not numbers:
        return text, images
    order = list(dict.fromkeys(numbers))
    if not plain and sorted(order) == list(range(1, len(images) + 1)):
        for number in order:
            text = re.sub(rf"<image[ _]?0*{number}>", IMAGE_TAG, text, count=1)
        return text, tuple(images[number - 1] for number in order)
    if plain:
        text = text.replace(IMAGE_TAG, "").strip()
    return IMAGE_TAG * len(images) + text, images


# ------------------------------------------------------------------ options and answers


def read_options(value: Any) -> tuple[str, ...]:
    """A row's options (a list, or a mapping from letter to text) without their own letters; empty when it has none.

    Options that are only letters come back as ``A``, ``B``, ...: they are drawn in the image.

    Raises:
        RowError: not a list of texts, or more options than letters.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, Mapping):
        if [str(key).strip("() .:").upper() for key in value] != list(LETTERS[: len(value)]):
            raise RowError("options cannot be read", "expected the keys A, B, ... in order")
        value = list(value.values())
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowError("options cannot be read", f"expected a list, got {type(value).__name__}")
    options = [plain_text(option) for option in value]
    if any(option is None for option in options):
        raise RowError("options cannot be read", "an option is neither text nor a number")
    if len(options) > len(LETTERS):
        raise RowError("options cannot be read", f"{len(options)} options, {len(LETTERS)} letters")
    return _without_letters([str(option) for option in options])


def _without_letters(options: list[str]) -> tuple[str, ...]:
    letters = LETTERS[: len(options)]
    bare = [option.strip("()[]. :").upper() for option in options]
    # An option that refers to an image has its place in the question's text already.
    if all(_TAG.search(option) for option in options) or bare == list(letters):
        return tuple(letters)
    found = [re.match(rf"[(\[]?{letter}[)\].:]\s*", option) for letter, option in zip(letters, options, strict=True)]
    if all(found):
        return tuple(option[match.end() :] for option, match in zip(options, found, strict=True) if match)
    return tuple(options)


def plain_text(value: Any) -> str | None:
    """A text or a number as stripped text; None for anything else, numbers that are none included."""
    if isinstance(value, str):
        return restore_backslashes(value).strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value)


def typed_answer(value: Any, text: str, options: Sequence[str], declared: Any = None) -> tuple[str, AnswerType]:
    r"""The gold answer without ``\boxed{}``, and how answers are compared with it.

    Args:
        value: the row's answer.
        text: the row's question.
        options: its options, when they have a column of their own.
        declared: the row's own answer type, or None: a question with options is a ``choice``, so is one whose
            answer is a lone letter A to H and whose text shows options by letter; all others are ``math``,
            which includes words.

    Returns:
        For a choice, the option's letter.

    Raises:
        RowError: no answer, an unknown type, or an answer that names none of the options.
    """
    answer = plain_text(value)
    if value is not None and answer is None:
        raise RowError("answer is neither text nor a number", type(value).__name__)
    answer = unbox(answer or "")
    if not answer:
        raise RowError("no answer")
    if REPLACEMENT in answer:
        raise RowError("answer with a broken character", f"{answer!r:.60}")
    if not normalize(answer):  # "$ $": nothing that an answer could equal
        raise RowError("answer is empty without its markup", repr(answer)[:80])
    if declared not in (None, "choice", "math", "text"):
        raise RowError("unknown answer type", f"{declared!r:.40}; expected choice, math or text")
    kind: AnswerType = declared or ("choice" if options or _is_shown_letter(answer, text) else "math")
    if kind != "choice":
        return answer, kind
    letter = choice_letter(answer, options)
    if letter is None:
        raise RowError("answer names no option", repr(answer)[:80])
    return letter, kind


def _is_shown_letter(answer: str, text: str) -> bool:
    match = _LONE_LETTER.fullmatch(answer)
    return match is not None and {"A", "B", match[1]} <= set(_LABEL.findall(text))


# ------------------------------------------------------------------ held-out shares


def check_share(name: str, share: float) -> None:
    """Raise unless a share is a share."""
    if not 0.0 <= share <= 1.0:
        raise RacroError(f"{name} is {share}; expected a share between 0 and 1")


def split_of(key: str, validation_share: float, test_share: float = 0.0) -> Split:
    """The split of a row, from a hash of its id: it stays the same when rows are added, removed or reordered."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"
