"""The page has a text for every code of a doubt, an error or a refusal, and fills it with values that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import melanoma_dist
from melanoma_dist.app.server import page_files
from melanoma_dist.inference.explanation import _CODES, Explanation
from melanoma_dist.storage.images import _KINDS

PACKAGE = Path(melanoma_dist.__file__).parent
PAGE = PACKAGE / "app/page"
STRINGS = (PAGE / "strings.en.js").read_text()
OWN_NAME = "melanoma-dist"
Values = dict[str, set[str]]


def texts(group: str) -> dict[str, str]:
    """The texts of a group, by code."""
    match = re.search(rf"^  {group}: {{\n(.+?)^  }},$", STRINGS, re.MULTILINE | re.DOTALL)
    assert match is not None
    return dict(re.findall(r'^    (\w+):\s+"(.*)",$', match[1], re.MULTILINE))


class Texts(HTMLParser):
    """The texts of a page that no string was put into: between tags, and in attributes that are shown or read out."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if re.search(r"[^\W\d_]", data) else []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        visible = ("alt", "title", "placeholder", "aria-label", "value")
        self.texts += [value for name, value in attrs if name in visible and value and not value.isdigit()]


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
        if (code := constant(call.args[0])) is not None and not code.startswith("mask_")  # nobody uploads masks
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
    assert len(codes) == 10
    assert codes.keys() == known.keys()
    assert not {code: extra for code, text in known.items() if (extra := placeholders(text) - codes[code])}


def test_every_refusal_has_a_text() -> None:
    assert len(codes_of_refusals()) > 15
    assert codes_of_refusals() == set(texts("refusals"))


def test_every_note_about_evidence_has_a_text() -> None:
    known = texts("evidenceNotes")
    of_maps = [
        Explanation(np.ones((2, 2), np.float32), "", fall, 0.0, trust) for fall, trust in ((0.5, 1.0), (0.0, 0.5))
    ]
    codes = {each.code: set(each.values) for each in of_maps} | {code: set() for code in _CODES.values()}
    assert len(codes) == 5
    assert codes.keys() == known.keys()
    assert {code: placeholders(text) for code, text in known.items()} == codes


def test_the_page_has_no_text_of_its_own() -> None:
    page = Texts()
    page.feed((PAGE / "index.html").read_text())
    assert set(page.texts) == {OWN_NAME, "{no_script}"}


# Text begins with a capital letter or has two words; a class has neither the one nor, by itself, the other.
LITERAL = re.compile(r'(?<!class: )(?<!\? )(?<!: )"([A-Z][a-z]+\b[^"]*|[a-z]+,? [a-z]+[^"]*)"')
NOT_SHOWN = {"Delete", "Backspace", "Escape", "Retry-After", "not checked"}


@pytest.mark.parametrize("script", sorted(PAGE.glob("*.js")), ids=lambda path: path.name)
def test_scripts_have_no_text_of_their_own(script: Path) -> None:
    if script.name.startswith("strings."):
        pytest.skip("the file of texts")
    lines = [line.split(" // ")[0] for line in script.read_text().splitlines() if not line.startswith(("//", "import"))]
    words = {text for line in lines for text in LITERAL.findall(line)}
    assert not {text for text in words if not text.startswith("http")} - NOT_SHOWN


def test_every_text_that_a_script_or_the_page_names_exists() -> None:
    scripts = "".join(path.read_text() for path in PAGE.glob("*.js") if not path.name.startswith("strings."))
    named = set(re.findall(r'\b(?:text|plural|list)\("(\w+)"', scripts))
    named |= set(re.findall(r'data-(?:string|label)="(\w+)"', (PAGE / "index.html").read_text()))
    assert len(named) > 60
    assert named <= set(re.findall(r"^  (\w+):", STRINGS, re.MULTILINE))


def test_without_scripts_the_page_speaks_all_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in PAGE.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "strings.de.js").write_text('export default {\n  noScript: "Ohne <Skripte> geht es nicht:",\n};\n')
    (tmp_path / "strings.fr.js").write_text("export default {\n};\n")
    monkeypatch.setattr(page_files, "files", lambda _: tmp_path)
    served = page_files.page_files()
    page = served["/"][0].decode()
    assert '<p class="card" lang="de">Ohne &lt;Skripte&gt; geht es nicht: <a href="/docs">' in page
    assert '<p class="card" lang="en">This page needs JavaScript.' in page
    assert 'lang="fr"' not in page
    assert served["/page/languages.json"][0] == b'["de", "en", "fr"]'
