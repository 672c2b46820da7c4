"""The files of the page, read once from the package: the page, its styles, its scripts, its texts in each language."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from importlib.resources.abc import Traversable

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and type of each file of the page, by its path on the server."""
    served: dict[str, tuple[bytes, str]] = {}
    languages: dict[str, str] = {}
    for file in sorted(files("melanoma_dist.app.page").iterdir(), key=lambda each: each.name):
        name = file.name
        suffix = name[name.rfind(".") :]
        if suffix in _TYPES:
            served["/" if name == "index.html" else f"/page/{name}"] = (file.read_bytes(), _TYPES[suffix])
        if name.startswith("strings."):
            languages[name.split(".")[1]] = _without_script(file)
    content, kind = served["/"]
    served["/"] = (content.replace(b"{no_script}", _in_all(languages).encode()), kind)
    served["/page/languages.json"] = (json.dumps(sorted(languages)).encode(), _TYPES[".json"])
    return served


def _without_script(strings: Traversable) -> str:
    """What the page says where scripts, which fill in all other texts, are off."""
    match = re.search(r'^  noScript: "(.*)",$', strings.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def _in_all(languages: dict[str, str]) -> str:
    """One sentence in all languages: without a script nothing chooses among them."""
    return "".join(
        f'<p class="card" lang="{language}">{html.escape(text)} <a href="/docs">/docs</a></p>'
        for language, text in sorted(languages.items())
        if text
    )
