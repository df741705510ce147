r"""MathVision by its authors' script ``evaluate``: an answer is cut out of the raw response, cleaned, and compared.

Re-implemented after its description, step by step, its peculiarities included: ``8\mathrm{~kg}`` is not 8, a text
of several sentences without ``\boxed{}`` or "the answer is" has no usable answer, and numbers count as equal when
they agree to two decimals. Their script evaluates formulas with Python's ``eval``; here a bounded process evaluates
them, and only numbers come out.
"""

from __future__ import annotations

import re

from racro_pl.evaluation.outcomes import Judgement, Tools, scored_part
from racro_pl.reward.grader import Grader
from racro_pl.text.choices import LETTERS
from racro_pl.text.latex import MAX_ANSWER_CHARS
from racro_pl.types import Question

DECIMALS = 2
_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_REMOVED = (
    " ", r"\,", "\n", r"\text", r"\mbox", r"\left", r"\right", r"^{\circ}", r"^\circ", "{m}^3", "m^3", "{units}",
    "units", "{km}", "km", r"\!", r"\$", "$", r"\%",
)  # fmt: skip
_BARE_SQRT = re.compile(r"\\sqrt([^{])")
_BARE_FRAC = re.compile(r"\\frac([^{])(?:\{|(.))", re.DOTALL)
_SLASH = re.compile(r"(-?(?:0|[1-9]\d{0,99}))/(-?(?:0|[1-9]\d{0,99}))", re.ASCII)


def mathvision(question: Question, response: str, tools: Tools) -> Judgement:
    """The rule of MathVision's authors; ``response`` is the raw response."""
    answer = extract(scored_part(response))
    golds = [question.answer]
    if question.answer_type == "choice" and question.choices:
        golds.append(question.choices[LETTERS.index(question.answer)])
    correct = any(equal(gold, answer, tools.grader) for gold in golds)
    return Judgement(answer or None, correct)


def extract(response: str) -> str:
    """What their script takes for the model's answer: lower case, without spaces; empty when nothing is left."""
    text = _shortened(response.strip())
    if "oxed{" not in text:
        for phrase in _PHRASES:
            for spelled in (phrase, phrase.replace("the", "The", 1)):
                before, found, after = text.rpartition(spelled)
                text = after.strip()
                if found:
                    text = text.split("\n", 1)[0].split(". ", 1)[0]
    elif text.count("oxed{") > 1:
        text = "oxed{" + text.rpartition("oxed{")[2]
    text = _cleaned(text)
    for letter in "abcde":
        text = text.replace(f"({letter})", letter)
    for letter in "abcde":
        text = text.replace(f"{{{letter}}}", letter)
    return text.rstrip(".").lstrip(":").strip()


def _shortened(text: str) -> str:
    for letter in "ABCDE":
        if text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(
            (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        ):
            text = letter
    tail = text.rpartition("is ")[2].rstrip(".")
    try:
        float(tail)
    except ValueError:
        return text
    return tail


def _cleaned(text: str) -> str:
    text = text.lower().replace("{}", "")
    start, end = text.find("oxed{"), text.rfind("}")
    if 0 <= start < end - 4:
        text = text[start + 5 : end]
    opening, closing = text.find("{"), text.find("}")
    if closing != -1 and (opening == -1 or closing < opening):
        text = text[:closing]
    text = text.rpartition("=")[2].rpartition(r"\approx")[2]
    # A space after \text marks a unit in their script, but spaces are gone by then: it never finds one.
    for removed in _REMOVED[:2]:
        text = text.replace(removed, "")
    text = text.replace("∞", r"\infty").replace(r"+\infty", r"\infty").replace("\\\\", "\\")
    for removed in _REMOVED[2:]:
        text = text.replace(removed, "")
    text = text.replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    text = _BARE_SQRT.sub(r"\\sqrt{\1}", text)
    if "sqrt" in text:
        text = _BARE_FRAC.sub(_braced, text)
    if text == "0.5":
        return r"\frac{1}{2}"
    return _SLASH.sub(r"\\frac{\1}{\2}", text) if _SLASH.fullmatch(text) else text


def _braced(match: re.Match[str]) -> str:
    over, under = match.groups()
    return rf"\frac{{{over}}}" + ("{" if under is None else f"{{{under}}}")


def equal(gold: str, answer: str, grader: Grader) -> bool:
    """Their comparison: as strings, as tuples of numbers, or as two numbers, to two decimals."""
    gold, answer = gold.lower().strip(), answer.lower().strip()
    if not gold or not answer:
        return False
    if gold == answer:
        return True
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return False
    elements = _elements(answer), _elements(gold)
    if elements[0] and elements[1]:
        return (answer[0], answer[-1], len(elements[0])) == (gold[0], gold[-1], len(elements[1])) and all(
            first == second or _same_number(first, second, grader) for first, second in zip(*elements, strict=True)
        )
    return _same_number(answer, gold, grader)


def _elements(text: str) -> list[str]:
    parts = text[1:-1].split(",")
    return parts if text[0] + text[-1] in ("()", "[]") and len(parts) > 1 else []


def _same_number(answer: str, gold: str, grader: Grader) -> bool:
    first, second = _value(answer, grader), _value(gold, grader)
    return first is not None and second is not None and round(first, DECIMALS) == round(second, DECIMALS)


def _value(text: str, grader: Grader) -> float | None:
    # Their latex2sympy reads a symbol in \circ and stumbles over \!; ours would read degrees and a space.
    # A product of symbols has no value ("e" is Euler's number): spares the parser most letters of options.
    if (text.isalpha() and set(text) - {"e"}) or r"\circ" in text or r"\!" in text:
        return None
    return grader.value(_parsed_part(text))


def _parsed_part(text: str) -> str:
    """What their latex2sympy reads of a text: all up to a brace that closes nothing, or a dot that ends a sentence."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth < 0 or (char == "." and not text[index + 1 : index + 2].isdigit()):
            return text[:index]
    return text
