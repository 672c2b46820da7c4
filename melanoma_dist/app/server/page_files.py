"""The files of the page, read once from the package: the page, its styles, its scripts, its texts in each language."""

from __future__ import annotations

import json
from importlib.resources import files

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
    languages = []
    for file in sorted(files("melanoma_dist.app.page").iterdir(), key=lambda each: each.name):
        name = file.name
        suffix = name[name.rfind(".") :]
        if suffix in _TYPES:
            served["/" if name == "index.html" else f"/page/{name}"] = (file.read_bytes(), _TYPES[suffix])
        if name.startswith("strings."):
            languages.append(name.split(".")[1])
    served["/page/languages.json"] = (json.dumps(sorted(languages)).encode(), _TYPES[".json"])
    return served
