"""The one Jinja environment, for pages (HTML) and the model card (Markdown)."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from melanoma_dist.pages.svg import svg


def render(template: str, **contents: object) -> str:
    """Render a template, named by its path below the package: ``sweep/page.html.j2``.

    Escapes every text in HTML. Raises jinja2.UndefinedError for a name that is not in ``contents``.
    """
    return _environment().get_template(template).render(**contents)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("melanoma_dist", "."),
        # Markdown is not HTML: its templates escape the cells of tables with the filter below.
        autoescape=select_autoescape(enabled_extensions=("html.j2",), disabled_extensions=("md.j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(svg=_inline, markdown=_markdown, sentence=_sentence, code=_code, thousands="{:,}".format)
    return environment


def _inline(figure: Figure) -> Markup:
    return Markup(svg(figure))  # noqa: S704  # nosec B704  # matplotlib escapes the figure's texts


def _markdown(text: object) -> str:
    """Keep text within one cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _code(text: str) -> Markup:
    """Mark what is between backticks as code."""
    parts = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in parts)


def _sentence(text: str) -> str:
    """Capitalise the first letter and leave the others."""
    return text[:1].upper() + text[1:]
