"""Imports point one way."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import melanoma_dist

ROOT = Path(melanoma_dist.__file__).parent
PACKAGE = ROOT.name
# A module may import from its own room and from those to the left.
ORDER = (
    {"errors", "console", "world", "signals"},
    {"storage", "pages"},
    {"config"},
    {"data"},
    {"metrics"},
    {"artifacts"},
    {"input", "models"},
    {"mirror"},
    {"train"},
    {"inference"},
    {"evaluate", "distributed"},
    {"display"},
    {"run"},
    {"sweep", "app"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
LIGHT = ("config.run", "errors", "data.folds", "input.stream", "train.schedule", "distributed.plan", "sweep.racing")


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Everything a file imports, anywhere in it: ``a.b`` and, for ``from a import b``, both ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def takes(path: Path, library: str) -> bool:
    return any(name == library or name.startswith(library + ".") for name in imports(path))


def own(path: Path) -> set[str]:
    """The modules of the package a file imports, as dotted names below it."""
    names = (name.removeprefix(PACKAGE + ".") for name in imports(path) if name.startswith(PACKAGE + "."))
    return {name for name in names if name in MODULES}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_a_level() -> None:
    assert {room(module) for module in MODULES} <= set(LEVEL)
    assert {"train.loop", "input.graph", "distributed.units", "data.folds"} <= set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module: str) -> None:
    upward = {
        other
        for other in own(MODULES[module])
        if room(other) != room(module) and LEVEL[room(other)] >= LEVEL[room(module)]
    }
    assert not upward, f"{module} imports {sorted(upward)}"


def test_the_foundation_is_flat() -> None:
    assert (
        own(MODULES["errors"]) == own(MODULES["world"]) == own(MODULES["console"]) == own(MODULES["pages.svg"]) == set()
    )
    assert own(MODULES["storage.atomic"]) == own(MODULES["storage.backoff"]) == set()


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("ray", ("distributed.", "sweep.")),
        ("ray.train", ("distributed.units",)),
        ("ray.tune", ("sweep.search",)),
        ("nvidia", ("input.graph",)),
        ("timm", ("models.", "train.optimizer", "train.step")),
        ("tyro", ("cli",)),
        ("requests", ("data.download.transfer",)),
        ("fsspec", ("storage.remote",)),
    ],
)
def test_a_library_is_known_in_its_place_only(library: str, allowed: tuple[str, ...]) -> None:
    users = {module for module, path in MODULES.items() if takes(path, library)}
    strangers = {module for module in users if not module.startswith(allowed)}
    assert not strangers
    if library in ("ray.train", "ray.tune", "nvidia"):
        assert users == set(allowed)


@pytest.mark.parametrize("module", LIGHT)
def test_what_is_pure_knows_no_heavy_library_even_through_others(module: str) -> None:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += own(MODULES[current])
    heavy = {
        (name, library)
        for name in seen
        for library in ("torch", "ray", "nvidia", "timm")
        if takes(MODULES[name], library)
    }
    assert not heavy


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import json, sys\n"
        "from melanoma_dist.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, timeout=60, check=True
    )
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert "--backbone" in done.stdout
    assert not {"torch", "ray", "nvidia", "pandas", "timm", "sklearn", "PIL"} & set(loaded)
