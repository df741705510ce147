"""Frozen dataclasses out of plain JSON values, strictly: nothing missing, nothing extra, nothing converted."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from racro_pl.types import RacroError

T = TypeVar("T")


def from_plain(kind: type[T], value: Any, where: str) -> T:
    """The dataclass ``kind`` from what JSON made of it (``dataclasses.asdict``).

    Fields may be scalars, Literals, tuples, dicts with string keys, Optionals and other dataclasses. Errors call the
    value ``where``.

    Raises:
        RacroError: a field is missing, unknown or of another type.
    """
    result: T = _convert(kind, value, where)
    return result


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        # Only X | None occurs.
        [inner] = [option for option in get_args(hint) if option is not type(None)]
        return None if value is None else _convert(inner, value, where)
    if origin is Literal:
        return _expect(value in get_args(hint), value, where, " or ".join(map(repr, get_args(hint))))
    if origin is tuple:
        return _tuple(get_args(hint), value, where)
    if origin is dict:
        _expect(isinstance(value, dict), value, where, "an object")
        return {key: _convert(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where)
    if hint is float:
        # JSON has one kind of number: 1.0 may come back as 1.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(_expect(number, value, where, "a number"))
    return _expect(type(value) is hint, value, where, f"a value of type {hint.__name__}")


def _tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list), value, where, "a list")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    _expect(len(value) == len(hints), value, where, f"a list of {len(hints)}")
    return tuple(_convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, where, "an object")
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if missing := [name for name in names if name not in value]:
        raise RacroError(f"{where}: missing {', '.join(missing)}; expected the fields {', '.join(names)}")
    if unknown := [name for name in value if name not in names]:
        raise RacroError(f"{where}: unknown {', '.join(unknown)}; expected the fields {', '.join(names)}")
    return kind(**{name: _convert(hints[name], value[name], f"{where}.{name}") for name in names})


def _expect(fine: bool, value: Any, where: str, expected: str) -> Any:
    if not fine:
        raise RacroError(f"{where}: got {value!r:.80}, expected {expected}")
    return value
