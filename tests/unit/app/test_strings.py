"""The page has a text for every code of a doubt, an error or a refusal, and fills it with values that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import melanoma_dist
from melanoma_dist.storage.images import _KINDS

PACKAGE = Path(melanoma_dist.__file__).parent
STRINGS = (PACKAGE / "app/page/strings.en.js").read_text()
Values = dict[str, set[str]]


def texts(group: str) -> dict[str, str]:
    """The texts of a group, by code."""
    match = re.search(rf"^  {group}: {{\n(.+?)^  }},$", STRINGS, re.MULTILINE | re.DOTALL)
    assert match is not None
    return dict(re.findall(r'^    (\w+):\s+"(.*)",$', match[1], re.MULTILINE))


def calls(*names: str, folder: str = "") -> Iterator[ast.Call]:
    """All calls of functions or classes in the package."""
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield node


def constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def keys(node: ast.expr | None) -> set[str]:
    return {str(constant(key)) for key in node.keys if key is not None} if isinstance(node, ast.Dict) else set()


def codes_of_errors() -> Values:
    in_calls = {
        code: {str(keyword.arg) for keyword in call.keywords}
        for call in calls("ImageError")
        if (code := constant(call.args[0])) is not None
    }
    reasons = {
        code: keys(call.args[1] if len(call.args) > 1 else None)
        for call in calls("Reason", folder="app")
        if (code := constant(call.args[0])) == "missing"
    }
    return in_calls | reasons | {code: set() for code, *_ in _KINDS}


def codes_of_doubts() -> Values:
    source = ast.parse((PACKAGE / "app/doubts.py").read_text())
    reasons = [node for node in ast.walk(source) if isinstance(node, ast.Call)]
    return {
        str(constant(call.args[0])): keys(call.args[1] if len(call.args) > 1 else None)
        for call in reasons
        if isinstance(call.func, ast.Name) and call.func.id == "Reason"
    }


def codes_of_refusals() -> set[str]:
    return {code for call in calls("Problem", folder="app/server") if (code := constant(call.args[1])) is not None}


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", text))


def test_every_error_of_an_image_has_a_text() -> None:
    codes, known = codes_of_errors(), texts("errors")
    assert len(codes) > 25
    assert codes.keys() == known.keys()
    assert not {code: extra for code, text in known.items() if (extra := placeholders(text) - codes[code])}


def test_every_doubt_has_a_text() -> None:
    codes, known = codes_of_doubts(), texts("doubts")
    assert len(codes) == 6
    assert codes.keys() == known.keys()
    assert not {code: extra for code, text in known.items() if (extra := placeholders(text) - codes[code])}


def test_every_refusal_has_a_text() -> None:
    assert len(codes_of_refusals()) > 15
    assert codes_of_refusals() == set(texts("refusals"))
