"""Rules of fields: what breaks one is named with its value, the rule and the remedy."""

from __future__ import annotations

from typing import Any

from melanoma_dist.errors import ConfigError


def check(section: Any, name: str, holds: bool, rule: str, value: Any = None) -> None:
    """Raise ConfigError unless a field of a section, or ``value``, ``holds`` to its rule."""
    if not holds:
        raise ConfigError.of(name, getattr(section, name, value), rule)


def between(section: Any, name: str, low: float, high: float) -> None:
    """Raise ConfigError unless a field is ``low`` to ``high``."""
    check(section, name, low <= getattr(section, name) <= high, f"must be {low} to {high}")


def check_url(name: str, url: str | None) -> None:
    """Raise ConfigError, which hides it, for a URL with a secret in it: URLs are shown, and kept with the run."""
    scheme, there, rest = (url or "").partition("://")
    before, _, place = rest.rpartition("@")
    if there and (":" in before or "?" in place):
        rule = "must hold no password and no signature, for it is shown and kept with the run"
        shown = f"{scheme}://...{place.partition('?')[0]}"
        raise ConfigError.of(name, shown, rule, "Set the storage's credentials in its own files or variables.")
