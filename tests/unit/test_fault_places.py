"""The slow fault tests name functions, and their table names tests, as text: every one of them exists."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [*(ROOT / "tests" / "chaos").rglob("*.py"), ROOT / "benchmarks" / "on_gpu" / "command.py"]
SHORT = {"{LOOP}": "melanoma_dist.train.loop", "{STEP}": "melanoma_dist.train.step"}


def places() -> set[str]:
    """All ``module:function`` in the files, as dotted names of the program."""
    texts = [match for file in FILES for match in re.findall(r'"([\w.{}]+):([\w.]+)"', file.read_text())]
    modules = {(SHORT.get(module, module).removeprefix("melanoma_dist."), name) for module, name in texts}
    return {f"{module}:{name}" for module, name in modules if module != "module"}


@pytest.mark.parametrize("place", sorted(places()))
def test_the_function_exists(place: str) -> None:
    module, _, name = place.partition(":")
    assert callable(functools.reduce(getattr, name.split("."), importlib.import_module(f"melanoma_dist.{module}")))


def test_the_search_finds_them() -> None:
    assert {"train.loop:FoldTrainer._resume", "distributed.units:train_units"} <= places()


def test_the_table_of_faults_names_existing_tests() -> None:
    """``path.py::test_name``; ``::test_name`` is in the file that was named last."""
    folder, missing, file = ROOT / "tests", [], Path()
    for path, test in re.findall(r"`([\w/]*(?:\.py)?)(?:::(\w+))?`", (folder / "chaos" / "README.md").read_text()):
        if path.endswith(".py"):
            file = next((place for place in (folder / path, folder / "chaos" / path) if place.is_file()), ROOT / path)
        if (path.endswith(".py") and not file.is_file()) or (test and f"def {test}(" not in file.read_text()):
            missing.append(f"{path}::{test}")
    assert not missing
