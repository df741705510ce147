r"""Normalising a written answer: what is dressing goes, what is mathematics stays, in one spelling.

``$\textbf{12}\,\text{cm}$`` becomes ``12 cm``. Nothing is interpreted here; ``values`` reads what is left.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_ANSWER_CHARS = 500
"""Longer answers are compared as strings alone: nothing of that length is a final answer."""
_MAX_NESTING = 20
"""Macros within macros that are taken off; more are no answer."""

_GREEK = re.findall(
    r"\w+",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau "
    "upsilon phi chi psi omega",
)
_CAPITALS = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Σ": "Sigma", "Φ": "Phi",
             "Ψ": "Psi", "Ω": "Omega"}  # fmt: skip
_CHARACTERS: dict[int, str] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
    **{ord(char): "" for char in "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufe0f\ufeff\u00ad\u200e\u200f"},
    **{ord(char): " " for char in "\u00a0\u2002\u2003\u2009\u202f\u3000\t\n"},
    **{0x3B1 + index: rf"\{name} " for index, name in enumerate(_GREEK)},
    **{ord(char): rf"\{name} " for char, name in _CAPITALS.items()},
    **{ord(char): "-" for char in "−–—‐‑‒―﹣"},  # models write the hyphen that never breaks a line as a minus
    **{ord(char): rf"\frac{{{over}}}{{{under}}}"
       for char, over, under in zip("½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "113121234151357", "244335555668888", strict=True)},
    **{ord(char): text for char, text in {
        "º": "°", "˚": "°", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "⁄": "/",
        "∕": "/", "∶": ":", "÷": r"\div ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≦": r"\le ", "≧": r"\ge ",
        "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "∅": r"\emptyset ", "±": r"\pm ", "∠": r"\angle ", "△": r"\triangle ", "√": r"\sqrt ", "ϕ": r"\phi ",
        "∆": r"\Delta ", "“": '"', "”": '"', "’": "'", "µ": r"\mu ", "℃": "°C", "、": ",", "。": ".", "′": "'",
        "¬": r"\neg ", "【": "[", "】": "]",
    }.items()},
}  # fmt: skip
# Letters and digits of mathematical alphabets, such as an italic x or pi.
_CHARACTERS |= {
    code: _CHARACTERS.get(ord(plain), plain)
    for code in range(0x1D400, 0x1D800)
    if len(plain := unicodedata.normalize("NFKC", chr(code))) == 1
}
# In print a root covers the whole number after it; TeX's would take one digit.
_ROOT = re.compile(r"√\s?(\d{1,40}(?:\.\d{1,40})?)")
# A careless writer of strings turns \frac into a form feed and "rac", and so on.
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_LOST = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\x0c(?=rac|box)", r"\\f"), (r"\x08(?=oxed|inom|eta|egin|ar)", r"\\b"),
        (r"\t(?=ext|imes|heta|an|frac)", r"\\t"),
        (r"\r(?=ight|m\b|ho)", r"\\r"), (r"\x0b(?=ec|arnothing)", r"\\v"), (r"\x07(?=lpha|ngle|pprox)", r"\\a"),
    ]
]  # fmt: skip
_WORDS_IN = re.compile(
    r"\\(?:text|textrm|textnormal|textbf|textit|textsf|texttt|textup|mathrm|mbox|hbox|operatorname\*?|emph)"
    r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_DRESS = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|mathit|mathsf|mathtt|mathnormal|fbox|framebox|boxed|underline|ensuremath"
    r"|textcolor\s*\{[^{}]*\}|colorbox\s*\{[^{}]*\})\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_GONE = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|nolimits|big[lrg]*|Big[lrg]*|bf|rm|it|sf|bfseries|itshape|indent|noindent|par|large|Large|LARGE|huge|Huge|small|normalsize)"
    r"(?![A-Za-z])|\\color\s*\{[^{}]*\}|\\(?:h|v)?phantom\s*\{[^{}]*\}|(?<!\\)\\!\s*|(?<!\\)\\[()\[\]]|\\?\$"
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\{([,.])\}", r"\1"),
        (r"\\\\(?=(?:le|ge|leq|geq|lt|gt|frac|dfrac|left|right|sqrt|pi|text|in|cup|infty|boxed|circ|cdot|times)(?![A-Za-z]))",
         r"\\"),
        (r"(?<=\d)\\[,;: ](?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|\\(?:hspace|vspace)\s*\{[^{}]*\}|~", " "),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|°|(?<=\d)\s*∘", " degree "),
        (r"(\\(?:sin|cos|tan|cot|sec|csc)\s*\(?\s*)(\d+(?:\.\d+)?)\s*degree(?![A-Za-z])", r"\1(\2\\pi/180)"),
        (r"\\([%#&])", r"\1"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\leqslant(?![A-Za-z])|\\leq(?![A-Za-z])|<=", r"\\le "),
        (r"\\geqslant(?![A-Za-z])|\\geq(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"(?<=[\d ])\\frac\s*\{\s*([a-z]{1,3})\s*\}\s*\{\s*([a-z]{1,3}(?:\s*\^\s*\{?2\}?)?)\s*\}$", r" \1/\2"),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\[lr]?[vV]ert(?![A-Za-z])|\\mid(?![A-Za-z])", "|"),
        (r"(?<![A-Za-z_^}\]])\{\s*([A-Za-z]{3,}(?: [A-Za-z]+)*)\s*\}", r" \1 "),  # 69{degrees}
        (r"\{(square|cubic)([a-z]+)\}", r" \1 \2 "),
    ]
]  # fmt: skip
_LEAD = re.compile(
    r"(?:(?:(?:so|thus|hence|therefore|final|the|my|correct)\s*,?\s+){0,4}(?:answer|ans|result)\s*(?:(?:is|=)(?![A-Za-z])\s*:?|:|(?=\s[\d\\(-]))"
    r"|(?:正确)?答案\s*(?:[:是为]+)|(?:is\s+)?(?:approximately|approx\.?|about|around|roughly|exactly|equals?|nearly)(?![A-Za-z])"
    r"|\\(?:approx|simeq|sim|therefore|implies|Rightarrow)(?![A-Za-z])|=|≈|:)\s*",
    re.IGNORECASE,
)
_MONEY = re.compile(r"\s*\\?\$\s*(-?\d[\d,.]{0,30})\s*")
_MINUS = re.compile(r"(?:negative|minus)\s+(?=[\d\\a-z])", re.IGNORECASE)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,])")
_TRAIL = re.compile(r"(?:\s|\\\\|\\(?=$)|[.;,]|(?<![\d)}\]])!|(?<=[\d}a-z)])\s*\((?!\d)[A-Za-z ,.]{3,40}\))+$")
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) +| +(?![A-Za-z0-9])")


def strip_markup(text: str) -> str:
    r"""A text without delimiters, font macros and spacing macros: ``$\text{A}$`` becomes ``A``.

    One of more than ``MAX_ANSWER_CHARS`` characters is only stripped.
    """
    return _strip_markup(text) if len(text) <= MAX_ANSWER_CHARS else text.strip()


@lru_cache(maxsize=20_000)
def _strip_markup(text: str) -> str:
    text = unicodedata.normalize("NFC", text)  # an accent that stands apart is the same letter
    text = _ROOT.sub(r"\\sqrt{\1}", restore_backslashes(text)).translate(_CHARACTERS)
    if money := _MONEY.fullmatch(text):
        return f"{money[1]} dollar"
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    if "\\" in text or "$" in text:
        # "\left" ends at a letter, and what follows must not become part of the word before it.
        text = _GONE.sub(lambda match: " " if match[0][-1].isalpha() else "", text)
        for _ in range(_MAX_NESTING):  # innermost first: \textbf{\text{A}}
            before = text
            text = _DRESS.sub(r"\1", _WORDS_IN.sub(r" \1 ", text))
            if text == before:
                break
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    if match := _GROUPED.match(text):  # 1 234 567
        text = match[0].replace(" ", "") + text[match.end() :]
    for mark in ("**", "__", "`", "*", '"', "'"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = text[len(mark) : -len(mark)].strip()
    return _unbraced(text)


def restore_backslashes(text: str) -> str:
    r"""``\x0crac`` (a form feed) back to ``\frac``, likewise other macros that an escape has eaten."""
    if text.isprintable():
        return text
    for pattern, replacement in _LOST:
        text = pattern.sub(replacement, text)
    return text


def normalize(answer: str) -> str:
    """An answer in one spelling: no markup, no "the answer is", no dot or remark in words at its end.

    One of more than ``MAX_ANSWER_CHARS`` characters is only stripped.
    """
    return _normalize(answer) if len(answer) <= MAX_ANSWER_CHARS else answer.strip()


@lru_cache(maxsize=20_000)
def _normalize(answer: str) -> str:
    text = strip_markup(answer)
    for _ in range(4):
        before = text
        text = _MINUS.sub("-", _TRAIL.sub("", text), count=1) if text[:1] in "nNmM" else _TRAIL.sub("", text)
        if match := _LEAD.match(text):
            text = text[match.end() :].strip() or text
        text = _unbraced(text)
        if text == before:
            break
    return text


def squeezed(normalized: str) -> str:
    """A normalised answer without the spaces that separate no words: the key of string equality."""
    return _LOOSE_SPACE.sub("", normalized)


def closing(text: str) -> int:
    """Where the bracket that a text begins with closes; -1 when it does not."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index
    return -1


def _unbraced(text: str) -> str:
    while len(text) > 2 and text[0] == "{" and closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text
