"""Whether a value is of the kind that a field of the configuration declares."""

from __future__ import annotations

import types
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def field_kind(section: Any, name: str) -> Any:
    """The declared type of a field of a section."""
    return _kinds(type(section))[name]  # type: ignore[arg-type]  # a class is hashable


@cache
def _kinds(section: Any) -> dict[str, Any]:
    return get_type_hints(section)


def fits(value: Any, kind: Any) -> bool:
    """Whether ``value`` is of a declared type. A whole number is a number too; True is neither."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return any(fits(value, part) for part in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def in_words(kind: Any) -> str:
    """A declared type for a message."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in get_args(kind))
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", type(None): "None"}
    return "a section" if is_dataclass(kind) else words.get(kind, str(kind.__name__))
