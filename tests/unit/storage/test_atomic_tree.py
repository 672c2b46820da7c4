"""A folder of folders is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.storage import atomic

from ..disk import PowerCut
from .test_atomic import every_call, writer


def create_tree(place: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        writer("new")(folder / "inner")

    atomic.write_tree(place / "tree", write)


def test_a_power_cut_at_any_call_leaves_no_tree_or_a_complete_one(tmp_path: Path) -> None:
    states = []
    for place, disk, number in every_call(tmp_path, create_tree, Path.mkdir):
        with disk.failing(number, PowerCut()), pytest.raises(PowerCut):
            create_tree(place)
        disk.lose_unflushed()
        states.append((place / "tree").exists())
        if not states[-1]:
            create_tree(place)
        assert [path.name for path in place.iterdir()] == ["tree"]
        assert [(place / "tree/inner" / name).read_text() for name in "ab"] == ["new a", "new b"]
    assert set(states) == {False, True}
