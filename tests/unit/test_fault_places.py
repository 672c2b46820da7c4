"""The slow fault tests name functions of the program by text: every one of them exists."""

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
