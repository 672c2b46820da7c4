"""Plots for pages: one look, and SVG that needs nothing from outside. Nothing of matplotlib's global state is touched.

Colours are those of Okabe and Ito (2008), which people tell apart whatever their colour vision.
"""

from __future__ import annotations

import io
import re

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, YELLOW, BLACK = "#cc79a7", "#56b4e9", "#f0e442", "#000000"
GREY = "#999999"
INK = "#1d2329"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
"""For lines that are told apart, in this order."""


def plot(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of so many inches with one pair of axes in the house's style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Two spines and a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)


def svg(figure: Figure) -> str:
    """An ``<svg>`` element with text as text; the same figure gives the same bytes.

    Groups lose their ids, which would repeat where a page has several plots.
    """
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "melanoma-dist", "font.size": 9}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    content = text.getvalue()
    return re.sub(r'<g id="[^"]*"', "<g", content[content.index("<svg") :])
