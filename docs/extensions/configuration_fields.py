"""The directive ``configuration``: one table per configuration class, from the class itself.

    ```{configuration} melanoma_dist.config.run.RunConfig
    ```

Each field's flag, type, default and docstring come from the frozen dataclasses, so the page cannot drift from
``--help``. Sections, which are dataclasses within the configuration, get a table of their own.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from typing import Any, get_args, get_type_hints

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from melanoma_dist.config.rules import suppressed


def field_docstrings(configuration: type) -> dict[str, str]:
    """The docstring below each field of a class, by the field's name, on one line."""
    [tree] = ast.parse(inspect.getsource(configuration)).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    texts = {}
    for statement, following in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = _text(following)
            if text is not None:
                texts[statement.target.id] = " ".join(text.split())
    return texts


def _text(statement: ast.stmt) -> str | None:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def rows(configuration: type) -> Iterator[tuple[str, str, str, str]]:
    """Flag, type, default and help of each field that is a flag, and not a section."""
    kinds, texts = get_type_hints(configuration), field_docstrings(configuration)
    for item in fields(configuration):
        if not is_dataclass(kinds[item.name]) and item.name not in suppressed(configuration):
            flag = f"--{item.name.replace('_', '-')}"
            yield flag, _kind(kinds[item.name]), _default(item), texts[item.name]


def sections(configuration: type) -> Iterator[tuple[str, type]]:
    """The sections of a configuration, with their names. A sweep's ``run`` is no section: its page refers to it."""
    for name, kind in get_type_hints(configuration).items():
        if isinstance(kind, type) and is_dataclass(kind) and name != "run":
            yield name, kind


def _kind(kind: Any) -> str:
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    text = re.sub(r"Literal\[(.*?)\]", lambda match: match[1].replace("'", "").replace(", ", " | "), str(kind))
    return re.sub(r"\b(?:\w+\.)+", "", text).replace(" | None", "")


def _default(item: Field[Any]) -> str:
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    return "required" if value is MISSING else "" if value is None else str(value)


class Configuration(SphinxDirective):
    """Tables of the fields of a configuration class and of its sections."""

    required_arguments = 1
    final_argument_whitespace = False

    def run(self) -> list[nodes.Node]:
        """The tables, as the page's own Markdown would make them."""
        module, _, name = self.arguments[0].rpartition(".")
        top = getattr(importlib.import_module(module), name)
        lines = [*_table(top)]
        for section, kind in sections(top):
            lines += [f"**`{section}`**: {inspect.getdoc(kind)}", "", *_table(kind)]
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), self.content_offset, holder)
        return holder.children


def _table(configuration: type) -> Iterator[str]:
    cells = [*rows(configuration)]
    if not cells:
        return
    yield from ("| flag | type | default | |", "|---|---|---|---|")
    for flag, kind, default, text in cells:
        parts = [f"`{flag}`", f"`{kind}`", f"`{default}`" if default else "", text]
        yield "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"
    yield ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("configuration", Configuration)
    return {"parallel_read_safe": True}
