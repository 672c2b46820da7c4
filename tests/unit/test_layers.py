"""Imports point one way.

What each level may know, from the bottom up:

- errors, console, world, signals, nvjpeg: the standard library and the terminal, nothing of this package.
- storage, pages: files, locks and page templates, but not what the files contain.
- config: the fields that a user sets, and their rules. Saved configurations are read with the limits of storage.
- data: what a data set is, from the challenges' archives to folds.
- metrics: numbers from arrays of labels and probabilities.
- artifacts: the run folder and its typed records.
- input, models: batches and networks, each without the other.
- mirror: copies of a run folder.
- train: one unit. It reports through a callable and does not know Ray.
- inference: what a finished run can do with an image.
- evaluate: the results of finished runs. distributed: units on a Ray cluster. Neither knows the other.
- tasks: what a command does for each task around the training of its folds.
- display, run, sweep, app: the commands that combine them.
- cli: all commands.
"""

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
# A module may import from its own room and from the rooms above it in this list.
ORDER = (
    {"errors", "console", "world", "signals", "nvjpeg"},
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
    {"display", "tasks"},
    {"run"},
    {"sweep", "app"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
LIGHT = (
    "config",
    "data.folds",
    "input.stream",
    "train.schedule",
    "distributed.plan",
    "sweep.racing",
    "metrics",
    "errors",
)
HEAVY = ("torch", "ray", "nvidia", "timm")


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package."""
    paths = {path.relative_to(ROOT).with_suffix("").parts: path for path in ROOT.rglob("*.py")}
    return {
        ".".join(part for part in parts if part != "__init__"): path
        for parts, path in paths.items()
        if parts != ("__init__",)
    }


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


def uses(path: Path, library: str) -> bool:
    return any(name == library or name.startswith(library + ".") for name in imports(path))


def internal(path: Path) -> set[str]:
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
        for other in internal(MODULES[module])
        if room(other) != room(module) and LEVEL[room(other)] >= LEVEL[room(module)]
    }
    assert not upward, f"{module} imports {sorted(upward)}"


def test_the_foundation_imports_nothing_of_the_package() -> None:
    for module in ("errors", "world", "console", "signals", "nvjpeg", "storage.atomic", "storage.backoff"):
        assert internal(MODULES[module]) == set(), module


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("ray", ("distributed.", "sweep.", "app.server.replicas")),
        ("ray.serve", ("app.server.replicas",)),
        ("ray.train", ("distributed.ray_workers",)),
        (
            "ray.tune",
            (
                "sweep.domains",
                "sweep.results",
                "sweep.search",
                "sweep.tune_searcher",
                "sweep.tune_workers",
                "sweep.unit_trial",
            ),
        ),
        ("nvidia", ("input.gpu_decoder", "input.graph")),
        ("timm", ("models.", "train.optimizer", "train.moving_average")),
        ("segmentation_models_pytorch", ("models.segmenter",)),
        ("tyro", ("cli", "config.")),
        ("jinja2", ("pages.environment",)),
        ("requests", ("data.download.transfer",)),
        ("fsspec", ("storage.remote",)),
        ("fastapi", ("app.server.",)),
        ("starlette", ("app.server.",)),
        ("uvicorn", ("app.server.",)),
    ],
)
def test_a_library_is_imported_in_its_place_only(library: str, allowed: tuple[str, ...]) -> None:
    users = {module for module, path in MODULES.items() if uses(path, library)}
    strangers = {module for module in users if not module.startswith(allowed)}
    assert not strangers
    if library in ("ray.train", "ray.tune", "nvidia"):
        assert users == set(allowed)


@pytest.mark.parametrize("place", LIGHT)
def test_pure_modules_import_no_heavy_library_even_through_others(place: str) -> None:
    """A place is a module, or a room with all its modules."""
    reached: set[str] = set()
    pending = [module for module in MODULES if module == place or module.startswith(f"{place}.")]
    assert pending
    while pending:
        current = pending.pop()
        if current not in reached:
            reached.add(current)
            pending += internal(MODULES[current])
    heavy = {(name, library) for name in reached for library in HEAVY if uses(MODULES[name], library)}
    assert not heavy


def test_every_room_says_what_it_is_for() -> None:
    for package in ROOT.rglob("__init__.py"):
        purpose = ast.get_docstring(ast.parse(package.read_text())) or ""
        assert 20 < len(purpose.splitlines()[0] if purpose else "") < 120, f"{package}: {purpose!r}"


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
