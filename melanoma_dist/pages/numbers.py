"""Format numbers for every page, table and card: three decimals by default, an en dash where there is no number."""

from __future__ import annotations

import math

UNDEFINED = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with fixed decimals; None and NaN become an en dash."""
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.{digits}f}"


def span(low: float | None, high: float | None, digits: int = 3) -> str:
    """Format the ends of an interval, ``0.780 to 0.841``; empty if an end is None."""
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def interval(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """Format a number with its interval: ``0.812 (0.780 to 0.841)``."""
    ends = span(low, high, digits)
    return f"{number(value, digits)} ({ends})" if ends else number(value, digits)


def signed(value: float) -> str:
    """Format a difference with its sign and three decimals; nothing rounds to a negative zero."""
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}"
