r"""The grammar of formulas: LaTeX and plain arithmetic, read into nested tuples.

    sum     := ['+'|'-'] product {('+'|'-') product}
    product := factor {('*'|'/'|'') factor}
    factor  := base {'^' exponent | '!' | '%'}
    base    := number | symbol | \frac{}{} | \sqrt[]{} | ( sum ) | |sum| | function factor

A node is ``(kind, part, ...)``. Letters are symbols, each for itself; ``x_1`` and ``S_{ABC}`` are one symbol. A word
is no formula.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any, NoReturn

from racro_pl.text.formula_tokens import NotAlgebraError, tokens

Node = tuple[Any, ...]
MAX_DEPTH = 40

_CONSTANTS = {"pi": "pi", "infty": "infty", "infinity": "infty", "e": "e", "i": "i"}
_GREEK = frozenset(
    re.findall(
        r"\w+",
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
        "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar",
    )
)
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}


@lru_cache(maxsize=20_000)
def parse_formula(text: str) -> Node:
    """The formula that a normalised text is.

    Raises:
        NotAlgebraError: it is none, or longer or deeper than any answer.
    """
    parser = _Parser(tokens(text))
    node = parser.sum()
    if parser.kind:
        parser.fail()
    return node


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0
        self._bars = 0

    @property
    def kind(self) -> str:
        """Of the token that comes next; empty at the end."""
        return self._tokens[self._place][0] if self._place < len(self._tokens) else ""

    @property
    def value(self) -> str:
        return self._tokens[self._place][1] if self._place < len(self._tokens) else ""

    def fail(self) -> NoReturn:
        raise NotAlgebraError

    def at(self, *signs: str) -> bool:
        """Whether one of these signs comes next."""
        return self.kind == "sign" and self.value in signs

    def took(self, *signs: str) -> bool:
        """Take the next token where it is one of these signs."""
        found = self.at(*signs)
        self._place += found
        return found

    def take(self) -> str:
        value = self.value
        if not self.kind:
            self.fail()
        self._place += 1
        return value

    def expect(self, sign: str) -> None:
        if self.take() != sign:
            self.fail()

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.fail()
        sign = self.take() if self.at("+", "-") else "+"
        node = self.product()
        if sign == "-":
            node = ("neg", node)
        while self.at("+", "-"):
            node = (self.take(), node, self.product())
        self._depth -= 1
        return node

    def product(self) -> Node:
        node = self.signed_factor()
        while True:
            if self.at("*", "/") or (self.kind == "command" and self.value in ("times", "cdot", "div")):
                operation = "/" if self.take() in ("/", "div") else "*"
                node = (operation, node, self.signed_factor())
            elif self.starts_factor():
                if node[0] == "number" and self.kind == "number":
                    self.fail()  # "3 4" is no product
                mixed = node[0] == "number" and node[1].denominator == 1 and self.value == "frac"
                factor = self.factor()
                if mixed and factor[0] == "/" and factor[1][0] == factor[2][0] == "number":
                    node = ("+", node, factor)
                else:
                    node = ("*", node, factor)
            else:
                return node

    def signed_factor(self) -> Node:
        if self.took("-"):
            return ("neg", self.factor())
        self.took("+")
        return self.factor()

    def starts_factor(self) -> bool:
        if self.kind == "sign":
            return self.value in ("(", "[", "{") or (self.value == "|" and not self._bars)
        if self.kind == "command":
            return self.value not in ("times", "cdot", "div") and (
                self.value in _GREEK or self.value in _CONSTANTS or self.value in _STRUCTURES
            )
        return self.kind in ("number", "letter", "function")

    def factor(self) -> Node:
        node = self.base()
        while True:
            if self.took("^", "**"):
                node = ("^", node, self.exponent())
            elif self.took("!"):
                node = ("!", node)
            elif self.took("%"):
                node = ("/", node, ("number", Fraction(100)))
            else:
                return node

    def exponent(self) -> Node:
        if self.at("+", "-"):
            return self.signed_factor()
        if self.at("{"):
            return self.group()
        node = self.base()
        return ("^", node, self.exponent()) if self.took("^", "**") else node  # a tower goes from the right

    def group(self) -> Node:
        """An argument: ``{...}``, or one digit, letter or command (``\\frac12``)."""
        if self.took("{"):
            node = self.sum()
            self.expect("}")
            return node
        if self.kind == "number" and len(self.value) > 1 and self.value.isdigit():
            digits = self.value
            self._tokens[self._place] = ("number", digits[1:])
            return ("number", Fraction(int(digits[0])))
        return self.base()

    def base(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.fail()
        kind = self.kind
        if kind == "number":
            node = self.number()
        elif kind == "letter":
            node = self.symbol(self.take())
        elif kind == "function":
            node = self.function()
        elif kind == "command":
            node = self.command()
        elif kind == "sign":
            node = self.bracket()
        else:
            self.fail()
        self._depth -= 1
        return node

    def number(self) -> Node:
        written = self.take().replace(",", "")
        if len(written) > 400:
            self.fail()
        if self.at("_"):  # 204_5, to base five
            return self.symbol(written)
        return ("number", Fraction(written.rstrip(".") if written != "." else "0"))

    def symbol(self, name: str) -> Node:
        marks = ""
        while self.at("_", "'"):
            marks += "'" if self.take() == "'" else "_" + self.subscript()
        if not marks and name in _CONSTANTS:
            return ("constant", _CONSTANTS[name])
        return ("symbol", name + marks)

    def subscript(self) -> str:
        if self.value != "{":
            return self.take()
        depth, text = 0, ""
        while True:
            depth += {"{": 1, "}": -1}.get(self.value, 0)
            text += self.take()
            if depth == 0:
                return text.strip("{}")

    def function(self) -> Node:
        name = self.take()
        base: Node | None = None
        power: Node | None = None
        while self.at("_", "^"):
            if self.take() == "_":
                base = self.group()
            else:
                power = self.exponent()
        if name == "sqrt":
            return self.root()
        if power == ("neg", ("number", Fraction(1))) and name in _INVERSES:
            name, power = _INVERSES[name], None
        argument = self.argument()
        node: Node
        if name == "exp":
            node = ("^", ("constant", "e"), argument)
        elif name in ("log", "lg"):
            node = ("call", "log", argument) if base is None else ("call", "log", argument, base)
        else:
            node = ("call", name, argument)
        return node if power is None else ("^", node, power)

    def root(self) -> Node:
        degree: Node = ("number", Fraction(2))
        if self.took("["):
            degree = self.sum()
            self.expect("]")
        inner = self.bracket() if self.at("(") else self.group()
        return ("^", inner, ("/", ("number", Fraction(1)), degree))

    def argument(self) -> Node:
        """What a function is applied to: brackets, or the factors that follow up to a sign or another function."""
        if self.at("(", "{", "["):
            return self.bracket()
        node = self.signed_factor()
        while self.starts_factor() and self.kind != "function" and not self.at("(", "["):
            node = ("*", node, self.factor())
        if node[0] in ("constant", "symbol", "*") and self.took("/"):
            node = ("/", node, self.factor())
        return node

    def command(self) -> Node:
        name = self.take()
        if name in _CONSTANTS:
            return ("constant", _CONSTANTS[name])
        if name in _GREEK:
            return self.symbol("\\" + name)
        if name in ("frac", "binom"):
            return ("/" if name == "frac" else name, self.group(), self.group())
        if name in ("lfloor", "lceil"):
            node = self.sum()
            self.expect("rfloor" if name == "lfloor" else "rceil")
            return ("call", name[1:], node)
        raise NotAlgebraError

    def bracket(self) -> Node:
        opening = self.take()
        if opening == "|":
            self._bars += 1
            node: Node = ("call", "abs", self.sum())
            self.expect("|")
            self._bars -= 1
            return node
        if opening not in ("(", "[", "{"):
            self.fail()
        bars, self._bars = self._bars, 0
        node = self.sum()
        self._bars = bars
        self.expect({"(": ")", "[": "]", "{": "}"}[opening])
        return node


_STRUCTURES = frozenset(["frac", "binom", "lfloor", "lceil"])
