"""Every module, file, test, link and quoted message that the documentation names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

import melanoma_dist

from ..unit.test_layers import ORDER
from .pages import PAGES, ROOT, inline_code, name

CHAOS = ROOT / "tests" / "chaos" / "README.md"
NAMING = [*PAGES, CHAOS, ROOT / "cluster" / "README.md"]
FOLDERS = ("melanoma_dist", "tests", "docs", "benchmarks", "cluster", "tune_spaces", "examples")


@cache
def definitions(path: Path) -> set[str]:
    """The names that a file defines: functions, classes, their methods, and variables of the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def exists(dotted: str) -> bool:
    """Whether ``melanoma_dist.a.b.Name`` is a package, a module, or a name in one."""
    place, parts = ROOT, dotted.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if not parts:
        return True
    if (place / f"{parts[0]}.py").is_file():
        return set(parts[1:]) <= definitions(place / f"{parts[0]}.py")
    return set(parts) <= definitions(place / "__init__.py")


@pytest.mark.parametrize("page", NAMING, ids=name)
def test_every_dotted_name_exists(page: Path) -> None:
    dotted = set(re.findall(r"\bmelanoma_dist(?:\.[A-Za-z_]\w*)+", page.read_text()))
    assert [entry for entry in sorted(dotted) if not exists(entry)] == []


@pytest.mark.parametrize("page", NAMING, ids=name)
def test_every_path_exists(page: Path) -> None:
    words = {word.partition("::")[0] for code in inline_code(page) for word in code.split()}
    paths = [word for word in words if re.match(rf"({'|'.join(FOLDERS)})/[\w./*-]*$", word)]
    assert [path for path in sorted(paths) if not [*ROOT.glob(path.rstrip("/"))]] == []


@pytest.mark.parametrize("page", NAMING, ids=name)
def test_every_link_between_files_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_test_of_the_table_of_faults_exists() -> None:
    missing, current = [], CHAOS
    for code in inline_code(CHAOS):
        file, _, test = code.partition("::")
        if file.endswith(".py") and "test_" in file:
            places = [CHAOS.parent / file, ROOT / "tests" / file]
            current = next((place for place in places if place.is_file()), Path(file))
        elif file or not test:
            continue
        if not current.is_file() or (test and test not in definitions(current)):
            missing.append(f"{current.name}: {code}")
    assert missing == []


def test_every_message_in_troubleshooting_is_one_of_the_program() -> None:
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    quoted = {code for row in rows for code in re.findall(r"`([^`]+)`", row) if not code.startswith("--")}
    sources = [*(ROOT / "melanoma_dist").rglob("*.py"), ROOT / "launch.py"]
    texts = [
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(quoted) > 10
    assert [message for message in sorted(quoted) if not any(message in text for text in texts)] == []


def test_the_readme_and_its_pictures_are_small() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 8192
    assert len(text.splitlines()) <= 150
    pictures = [path for path in (ROOT / "docs" / "images").iterdir() if path.suffix in (".png", ".svg")]
    assert len(pictures) >= 3
    assert [path.name for path in pictures if path.stat().st_size >= 150_000] == []


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == melanoma_dist.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)


def test_the_picture_of_the_layers_is_the_tested_order() -> None:
    drawing = (ROOT / "docs" / "images" / "architecture.svg").read_text()
    rows: dict[int, set[str]] = {}
    for height, names in re.findall(r'<text x="\d+" y="(\d+)"><tspan font-weight="bold">(.*?)</tspan>', drawing):
        rows.setdefault(int(height), set()).update(names.split(", "))
    drawn = [rows[height] for height in sorted(rows, reverse=True)]
    package = {path.stem for path in (ROOT / "melanoma_dist").iterdir()}
    assert drawn == [rooms & package for rooms in ORDER if rooms & package]
