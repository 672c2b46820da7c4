"""The documentation as data: pages, fenced blocks, the commands in them, inline code."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command of a ``bash`` block, as words."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page; those within a list lose their indent."""
    result = []
    for indent, language, text in _FENCE.findall(page.read_text()):
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        result.append(Block(name(page), language.strip(), "\n".join(lines) + "\n"))
    return result


def inline_code(page: Path) -> list[str]:
    """Text in single backticks, outside fenced blocks."""
    return _INLINE.findall(_FENCE.sub("", page.read_text()))


def commands() -> list[Command]:
    """Every command of every ``bash`` block, one a line."""
    return [
        Command(block.page, tuple(shlex.split(line, comments=True)))
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for line in block.text.splitlines()
        if shlex.split(line, comments=True)
    ]
