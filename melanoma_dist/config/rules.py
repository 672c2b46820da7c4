"""Rules of fields: ranges, URLs and declared types. A message names the field, its value and the rule."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Suppress

from melanoma_dist.config.places import expanded
from melanoma_dist.errors import ConfigError, UserError


def check(section: object, name: str, holds: bool, rule: str) -> None:
    """Raise ConfigError for a field of a section unless its rule ``holds``."""
    if not holds:
        raise ConfigError.of(name, getattr(section, name), rule)


def between(section: object, name: str, low: float, high: float) -> None:
    """Raise ConfigError unless a field is ``low`` to ``high``."""
    check(section, name, low <= getattr(section, name) <= high, f"must be {low} to {high}")


def optional_between(section: object, name: str, low: float, high: float) -> None:
    """Raise ConfigError unless a field is None or ``low`` to ``high``."""
    if getattr(section, name) is not None:
        between(section, name, low, high)


def at_least(section: object, low: int, *names: str) -> None:
    """Raise ConfigError unless each field is None or at least ``low``."""
    rule = f"must be at least {low}" if low else "must not be negative"
    for name in names:
        value = getattr(section, name)
        check(section, name, value is None or value >= low, rule)


def check_url(name: str, url: str | None) -> None:
    """Raise ConfigError for a URL with a password or a signature. The message hides the secret."""
    scheme, separator, rest = (url or "").partition("://")
    before, _, place = rest.rpartition("@")
    if separator and (":" in before or "?" in place):
        rule = "must hold no password and no signature, because it is printed and saved with the run"
        hidden = f"{scheme}://...{place.partition('?')[0]}"
        raise ConfigError.of(name, hidden, rule, "Set the storage's credentials in its own files or variables.")


def expand_home(section: object, *names: str) -> None:
    """Expand a leading ``~`` in fields that hold a path, a text that may be one, or several paths."""
    for name in names:
        value = getattr(section, name)
        if isinstance(value, tuple):
            value = tuple(expanded(name, each) for each in value)
        elif isinstance(value, Path) or (isinstance(value, str) and value.startswith("~")):
            value = type(value)(expanded(name, value))
        object.__setattr__(section, name, value)  # the sections are frozen for everybody else


def check_together(*checks: Callable[[], object]) -> None:
    """Run all checks. Raises ConfigError with the messages of all that fail: one try then shows every mistake."""
    messages = []
    for each in checks:
        try:
            each()
        except UserError as error:
            messages.append(str(error))
    if messages:
        raise ConfigError("\nerror: ".join(messages))


def field_type(section: object, name: str) -> object:
    """The declared type of a field of a section."""
    return _field_types(type(section))[name]  # type: ignore[arg-type]  # a class is hashable


@cache
def _field_types(section: type) -> dict[str, object]:
    return get_type_hints(section)


def suppressed(section: type) -> frozenset[str]:
    """The fields of a section that are no flags."""
    hints = get_type_hints(section, include_extras=True)
    return frozenset(name for name, hint in hints.items() if Suppress in getattr(hint, "__metadata__", ()))


def has_type(value: object, declared: object) -> bool:
    """Whether ``value`` is of a declared type. An int is a float too; a bool is neither."""
    if get_origin(declared) is Literal:
        return isinstance(value, str) and value in get_args(declared)
    if parts := _alternatives(declared):
        return any(has_type(value, part) for part in parts)
    if declared is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if declared is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(declared, type) and isinstance(value, declared)


def type_in_words(declared: object) -> str:
    """A declared type for a message."""
    if get_origin(declared) is Literal:
        return "one of " + ", ".join(map(str, get_args(declared)))
    if parts := _alternatives(declared):
        return " or ".join(map(type_in_words, parts))
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", type(None): "None"}
    name = getattr(declared, "__name__", str(declared))
    return "a section" if is_dataclass(declared) else words.get(declared, name) if isinstance(declared, type) else name


def _alternatives(declared: object) -> Sequence[object]:
    return get_args(declared) if get_origin(declared) in (Union, types.UnionType) else ()
