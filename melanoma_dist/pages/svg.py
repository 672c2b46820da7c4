"""Draw plots for pages as SVG that needs no other file. Nothing changes matplotlib's global state.

Colours are those of Okabe and Ito (2008), which people distinguish whatever their colour vision. Plots are drawn for a
white background; the stylesheet turns their lightness in dark mode.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from melanoma_dist.pages.tables import Table

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, YELLOW, BLACK = "#cc79a7", "#56b4e9", "#f0e442", "#000000"
GREY = "#767676"
INK = "#1d2329"
WIDTH = 3.9
"""Inches of a plot in a column: at 96 pixels an inch it fits a phone at full size."""
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
"""Colours of lines, in this order."""


class PageFigure(NamedTuple):
    """A plot and its words."""

    name: str
    """Its tag in TensorBoard: letters and underscores."""
    title: str
    figure: Figure
    alt: str
    """Its key numbers in a sentence."""
    caption: str
    table: Table | None = None
    """The numbers behind it; None where the page shows them already."""


def plot(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure (inches) with one pair of axes in the pages' style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Draw two spines and a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)


def svg(figure: Figure) -> str:
    """Return an ``<svg>`` element with text as text; the same figure gives the same bytes."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "melanoma-dist", "font.size": 9}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    content = text.getvalue()
    content = re.sub(r'<g id="[^"]*"', "<g", content[content.index("<svg") :])
    # matplotlib names clip paths and markers alike in every figure; ids must be unique in a page with several.
    prefix = hashlib.sha256(content.encode()).hexdigest()[:8]
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", content)
