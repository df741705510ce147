r"""When two written answers are equal. Exact: no tolerance, no guess.

The gold answer's type decides how it is compared: quantities by value and unit, ratios by their terms, intervals by
ends and brackets, tuples in order, sets and bare lists in any order, words as words, formulas by identity testing.
What formulas leave open goes to a computer algebra system, handed in as ``decide``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

from racro_pl.text.algebra import equations_equal, formulas_equal, is_formula, is_proportion, value_of
from racro_pl.text.latex import MAX_ANSWER_CHARS, normalize, squeezed
from racro_pl.text.numbers import parse_number
from racro_pl.text.read_value import read_value
from racro_pl.text.units import tight_unit
from racro_pl.text.values import (
    Clock,
    Collection,
    Equation,
    Formula,
    Interval,
    Ratio,
    Value,
    Words,
    as_ratio,
    same_time,
)
from racro_pl.text.words import texts_equal

Decide = Callable[[str, str], bool | None]
MAX_FLOAT_DIGITS = 15
"""A decimal of as many digits or more is a printed double: compared relative to its last digits."""
_ORDERED = re.compile(
    r"\b(?:respectively|in (?:(?:that|this|the|ascending|descending|increasing|decreasing|alphabetical) )?"
    r"(?:same )?order"
    r"|ordered (?:pair|triple|list)|from (?:smallest|largest|least|greatest|left|top|lowest|highest)|order them"
    r"|sort(?:ed)?|arrange)\b|依次|顺序",
    re.IGNORECASE,
)
MAX_ASKED = 8
"""Symbolic comparisons of one answer, which may be a list; beyond, it stays open."""
_BEYOND_GRAMMAR = re.compile(
    r"\\(?:i*int|oint|sum|prod|lim|begin|det|max|min|gcd|lcm|[bp]?mod|mathbb|cup|cap|setminus|subset|partial|nabla|prime"
    r"|overline|forall|exists|neg|land|lor|equiv|ne|in|vec|hat)(?![A-Za-z])"
)
"""What a computer algebra system may know and ``formula`` does not."""
_FRACTION = re.compile(r"\\frac|/")


def answers_equal(answer: str, gold: str, decide: Decide, ordered: bool = False) -> bool | None:
    """Whether an answer is the gold answer; ``decide`` is asked about formulas that identity testing leaves open.

    Args:
        answer: as a model wrote it, without its box.
        gold: as the data set wrote it.
        decide: a symbolic comparison of two normalised formulas, or None where it does not know.
        ordered: the order of a bare list counts.

    Returns:
        None when ``decide`` left it open.
    """
    if max(len(answer), len(gold)) > MAX_ANSWER_CHARS:
        return answer.strip() != "" and answer.strip() == gold.strip()
    first, second = normalize(answer), normalize(gold)
    if not first or not second:
        return False
    if squeezed(first) == squeezed(second):
        return True
    comparison = _Comparison(decide, ordered)
    exact, approximate, _ = first.partition(r"\approx")
    if approximate and "=" in exact and r"\approx" not in second:
        # "x = 1/3 \approx 0.33" gives one value twice; the exact one is meant.
        first = exact.strip()
    return comparison.equal(read_value(first), read_value(second))


def quick_equal(answer: str, gold: str) -> bool | None:
    """Equality without a computer algebra system; None when that does not decide it."""
    return answers_equal(answer, gold, lambda _answer, _gold: None)


@lru_cache(maxsize=2_000)
def fixes_order(question: str) -> bool:
    """Whether a question's text says in which order its answers go."""
    return _ORDERED.search(question[-2_000:]) is not None


class _Comparison:
    def __init__(self, decide: Decide, ordered: bool) -> None:
        self._decide = decide
        self._ordered = ordered
        self._asked = 0

    def equal(self, answer: Value, gold: Value) -> bool | None:
        if answer == gold:
            return True
        if isinstance(answer, Equation) or isinstance(gold, Equation):
            return self._equations(answer, gold)
        if isinstance(gold, Clock) or isinstance(answer, Clock):
            if same_time(answer, gold):
                return True
            answer, gold = as_ratio(answer), as_ratio(gold)  # "3:16" is a time or a ratio
        if isinstance(gold, Ratio) or isinstance(answer, Ratio):
            return self._ratios(answer, gold)
        if isinstance(gold, Formula) and isinstance(answer, Formula):
            return self._formulas(answer, gold)
        if isinstance(gold, Words) or isinstance(answer, Words):
            return isinstance(gold, Words) and isinstance(answer, Words) and texts_equal(answer.text, gold.text)
        return self._collections(answer, gold)

    # -------------------------------------------------------------- one value

    def _formulas(self, answer: Formula, gold: Formula) -> bool | None:
        if gold.unit is not None and answer.unit is None:
            answer = _with_tight_unit(answer)
        elif answer.unit is not None and gold.unit is None:
            gold = _with_tight_unit(gold)
        scale = Fraction(1)
        if answer.unit and gold.unit and answer.unit.dimension and gold.unit.dimension:
            if answer.unit.dimension != gold.unit.dimension:
                return self._angles(answer, gold)
            scale = answer.unit.size / gold.unit.size
        elif any(
            side.unit and side.unit.dimension == (("degree", 1),) and not other.unit and r"\pi" in other.text
            for side, other in ((answer, gold), (gold, answer))
        ):
            return self._angles(answer, gold)
        if answer.number is not None and gold.number is not None:
            return _same_number(answer, gold, scale)
        if answer.percent or gold.percent:
            return self._texts(answer.text, gold.text) or self._texts(
                f"({answer.text})/100" if answer.percent else answer.text,
                f"({gold.text})/100" if gold.percent else gold.text,
            )
        # "one half" and 0.\overline{3} are no formulas; their numbers are known.
        left, right = (side.text if side.number is None else str(side.number) for side in (answer, gold))
        return self._texts(left if scale == 1 else f"({left})*{scale.numerator}/{scale.denominator}", right)

    def _texts(self, answer: str, gold: str) -> bool | None:
        if answer == gold:
            return True
        verdict = formulas_equal(answer, gold)
        if verdict is not None:
            return verdict
        if not _BEYOND_GRAMMAR.search(f"{answer} {gold}") and not (is_formula(answer) and is_formula(gold)):
            return False  # words, or a typing error: algebra would not know either
        self._asked += 1
        return self._decide(answer, gold) if self._asked <= MAX_ASKED else None

    def _angles(self, answer: Formula, gold: Formula) -> bool | None:
        radians = []
        for side in (answer, gold):
            dimension = side.unit.dimension if side.unit else (("radian", 1),)
            if dimension not in ((("degree", 1),), (("radian", 1),)):
                return False
            radians.append(rf"({side.text})*\pi/180" if dimension[0][0] == "degree" else side.text)
        return self._texts(*radians)

    def _ratios(self, answer: Value, gold: Value) -> bool | None:
        terms = [value.terms if isinstance(value, Ratio) else () for value in (answer, gold)]
        if not all(terms):
            other, ratio = (answer, terms[1]) if terms[1] else (gold, terms[0])
            # A ratio is a fraction, but "2" for 2:1 leaves out what the question asks for.
            if len(ratio) != 2 or not isinstance(other, Formula) or other.unit or other.percent:
                return False
            if other.number is not None and other.number.denominator == 1 and not _FRACTION.search(other.text):
                return False
            return self._texts(other.text, f"({ratio[0]})/({ratio[1]})")
        if len(terms[0]) != len(terms[1]) or not all(map(is_proportion, terms)):
            return False
        pairs = combinations(zip(*terms, strict=True), 2)
        return _all(self._texts(f"({a})*({d})", f"({b})*({c})") for (a, b), (c, d) in pairs)

    def _equations(self, answer: Value, gold: Value) -> bool | None:
        left, right = _settled(answer), _settled(gold)
        if isinstance(left, Equation) and isinstance(right, Equation):
            if left.name and right.name and {left.name, right.name} <= {"x", "y", "z"} and left.name != right.name:
                if left.value is not None and _is_number(left.value):
                    return False
            elif left.value is not None and right.value is not None and self.equal(left.value, right.value):
                return True
            if bool(left.name and _is_number(left.value)) != bool(right.name and _is_number(right.value)):
                return False
            return bool(equations_equal((left.left, left.right), (right.left, right.right)))
        for named, other in ((left, right), (right, left)):
            if isinstance(named, Equation):
                # "x = 3" for 3; "2x = 6" is not solved.
                return named.value is not None and self.equal(
                    *((named.value, other) if named is left else (other, named.value))
                )
        return self.equal(left, right)

    # -------------------------------------------------------------- several values

    def _collections(self, answer: Value, gold: Value) -> bool | None:
        if isinstance(answer, Interval) or isinstance(gold, Interval):
            first, second = _as_interval(answer), _as_interval(gold)
            if first is None or second is None or first.brackets != second.brackets:
                return False
            return _all(self._texts(a, b) for a, b in ((first.low, second.low), (first.high, second.high)))
        if not isinstance(answer, Collection) or not isinstance(gold, Collection):
            return False
        kinds = {answer.kind, gold.kind}
        named = self._named_tuple(answer, gold)
        if named is not None:
            return named
        # "1, 2, 3" for the list [1, 2, 3]; of two, the brackets may mean an interval or a point.
        bare_list = kinds == {"list", "[]"} and len(gold.items) > 2
        if len(kinds) > 1 and kinds not in ({"list", "{}"}, {"list", "cup"}) and not bare_list:
            return False
        if len(answer.items) != len(gold.items):
            return False
        names = [[item.name for item in side.items if isinstance(item, Equation)] for side in (answer, gold)]
        if len(set(names[0])) == len(gold.items) and sorted(names[0]) == sorted(names[1]):
            order = {name: place for place, name in enumerate(names[0])}  # b=5, a=4 for a=4, b=5
            return _all(self.equal(answer.items[order[n]], b) for n, b in zip(names[1], gold.items, strict=True))
        if gold.kind in ("{}", "cup") or (
            gold.kind == "list" and not bare_list and (not self._ordered or "{}" in kinds)
        ):
            return self._any_order(answer.items, gold.items)
        return _all(self.equal(a, b) for a, b in zip(answer.items, gold.items, strict=True))

    def _named_tuple(self, answer: Collection, gold: Collection) -> bool | None:
        """``x=1, y=2`` against ``(1, 2)``."""
        for named, plain, turned in ((answer, gold, False), (gold, answer, True)):
            if named.kind != "list" or plain.kind != "()" or len(named.items) != len(plain.items):
                continue
            equations = [item for item in named.items if isinstance(item, Equation) and item.value is not None]
            if len(equations) == len(plain.items):
                values = [item.value for item in sorted(equations, key=lambda item: item.name)]
                pairs = zip(values, plain.items, strict=True)
                return _all(self.equal(b, a) if turned else self.equal(a, b) for a, b in pairs if a is not None)
        return None

    def _any_order(self, answer: Sequence[Value], gold: Sequence[Value]) -> bool | None:
        left = list(gold)
        undecided = False
        for item in answer:
            verdicts = [self.equal(item, other) for other in left]
            if True in verdicts:
                left.pop(verdicts.index(True))
            elif None in verdicts:
                undecided = True
            else:
                return False
        return None if undecided else True


def _all(verdicts: object) -> bool | None:
    undecided = False
    for verdict in verdicts:  # type: ignore[attr-defined]
        if verdict is False:
            return False
        undecided = undecided or verdict is None
    return None if undecided else True


def _settled(value: Value) -> Value:
    """A chain of numbers, ``3 * 4 = 12``, is its last one; a false one stays an equation."""
    if isinstance(value, Equation) and not value.name:
        last = read_value(value.right)
        if isinstance(last, Formula) and value_of(value.left) is not None and formulas_equal(value.left, last.text):
            return last
    return value


def _is_number(value: Value | None) -> bool:
    return isinstance(value, Formula) and (value.number is not None or value_of(value.text) is not None)


def _with_tight_unit(value: Formula) -> Formula:
    text, unit = tight_unit(value.text)
    return value if unit is None else Formula(text, parse_number(text), unit)


def _same_number(answer: Formula, gold: Formula, scale: Fraction) -> bool:
    first, second = (answer.number or Fraction(0)) * scale, gold.number or Fraction(0)
    if answer.percent != gold.percent:
        # "50%" may be meant as 50 (the question asks for a percentage) or as 0.5.
        return first == second or (first / 100 == second if answer.percent else first == second / 100)
    if first == second:
        return True
    digits = max(len(re.sub(r"[eE].*|\D", "", side.text).lstrip("0")) for side in (answer, gold))
    return (
        digits >= MAX_FLOAT_DIGITS
        and "." in answer.text + gold.text
        and (abs(first - second) <= abs(second) * Fraction(1, 10**14))
    )


def _as_interval(value: Value) -> Interval | None:
    if isinstance(value, Collection) and value.kind in ("()", "[]") and len(value.items) == 2:
        ends = [item.text if isinstance(item, Formula) else "" for item in value.items]
        return Interval(ends[0], ends[1], value.kind) if all(ends) else None
    return value if isinstance(value, Interval) else None
