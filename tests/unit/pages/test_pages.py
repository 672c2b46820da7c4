"""Pages share one environment, one table and one number format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

import melanoma_dist
from melanoma_dist.pages.environment import render
from melanoma_dist.pages.numbers import interval, number, signed, span
from melanoma_dist.pages.svg import plot, svg
from melanoma_dist.pages.tables import measured, plain, undefined

TEMPLATES = sorted(path.relative_to(Path(melanoma_dist.__file__).parent)
                   for path in Path(melanoma_dist.__file__).parent.rglob("page.html.j2"))  # fmt: skip


def drawn(points: list[float]) -> Figure:
    figure, axes = plot(3, 2)
    axes.plot(range(len(points)), points, "o")
    return figure


def test_numbers_have_three_decimals_and_undefined_ones_a_dash() -> None:
    assert number(0.81249) == "0.812"
    assert number(0.81249, 4) == "0.8125"
    assert number(None) == number(float("nan")) == "–"
    assert interval(0.812, 0.78, 0.841) == "0.812 (0.780 to 0.841)"
    assert interval(0.812, None, None) == "0.812"
    assert interval(None, None, None) == "–"
    assert span(None, 0.5) == ""
    assert [signed(value) for value in (0.0123, -0.0123, -0.0004)] == ["+0.012", "-0.012", "0.000"]


def test_cells_have_a_number_with_its_interval_or_the_reason_for_a_dash() -> None:
    assert str(measured(0.8, "", 0.7, 0.9)) == "0.800 (0.700 to 0.900)"
    assert str(measured(None, "no image has it")) == "– (no image has it)"
    assert undefined("why").kind == "undefined"
    assert plain(12345).text == "12,345"
    assert plain(True).text == "True"


def test_ids_are_unique_across_plots_and_equal_plots_have_equal_bytes() -> None:
    texts = [svg(drawn([0.1, 0.5, values])) for values in (0.2, 0.9)]
    ids = [name for text in texts for name in re.findall(r'\sid="([^"]+)"', text)]
    assert len(ids) == len(set(ids)) > 0
    for text in texts:
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= set(re.findall(r'\sid="([^"]+)"', text))
    assert svg(drawn([0.1, 0.5, 0.2])) == texts[0]


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_every_page_extends_the_base_and_refuses_missing_contents(template: Path) -> None:
    text = (Path(melanoma_dist.__file__).parent / template).read_text()
    assert text.startswith('{% extends "pages/base.html.j2" %}')
    assert "<style" not in text
    assert "<table" not in text.replace('<table class="verdicts">', "")
    with pytest.raises(UndefinedError):
        render(str(template))


def test_there_are_five_pages() -> None:
    assert len(TEMPLATES) == 5


def test_the_stylesheet_has_a_dark_palette_with_every_colour_of_the_light_one() -> None:
    text = (Path(melanoma_dist.__file__).parent / "pages" / "style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)[:2]
    assert re.findall(r"--[\w-]+(?=:)", light) == re.findall(r"--[\w-]+(?=:)", dark)
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"url\(|@import|https?:", text)
