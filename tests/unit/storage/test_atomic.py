"""After a power cut at any moment, a reader finds the old or the new state, never a mixture."""

from __future__ import annotations

import errno
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.storage import atomic

from ..disk import FaultyDisk, PowerCut
from ..hostile import fuzz_reader


def writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a").write_text(f"{text} a")
        (folder / "b").write_text(f"{text} b")

    return write


def content(parent: Path) -> str | None:
    """Return what a reader finds: "old", "new" or None; fail on a mixture."""
    folder = atomic.committed_folders(parent, "step").get("step")
    if folder is None:
        return None
    assert atomic.integrity_error(folder, required=("a", "b")) is None
    one, other = (folder / "a").read_text(), (folder / "b").read_text()
    assert one.split()[0] == other.split()[0]
    return one.split()[0]


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    atomic.write_folder(tmp_path / "all" / "step", writer("old"))
    return tmp_path / "all"


def record_calls(parent: Path, action: Callable[[], object]) -> list[str]:
    disk = FaultyDisk(parent)
    with disk.failing(None, PowerCut()):
        action()
    return disk.calls


def every_call(tmp_path: Path, action: Callable[[Path], object], prepare: Callable[[Path], object]) -> Iterator[Any]:
    """Yield (fresh folder, its disk, number of a call), once for each call that the action makes to the disk."""
    first = tmp_path / "first"
    prepare(first)
    calls = record_calls(first, lambda: action(first))
    for number in range(len(calls)):
        place = tmp_path / str(number)
        prepare(place)
        yield place, FaultyDisk(place), number


def prepare_folder(place: Path) -> None:
    atomic.write_folder(place / "step", writer("old"))


def replace_folder(place: Path) -> None:
    atomic.write_folder(place / "step", writer("new"))


def prepare_file(place: Path) -> None:
    place.mkdir()
    atomic.write_text(place / "file", "old")


def replace_file(place: Path) -> None:
    atomic.write_text(place / "file", "new")


def test_a_power_cut_at_any_call_leaves_the_old_folder_or_the_new(tmp_path: Path) -> None:
    states = []
    for place, disk, number in every_call(tmp_path, replace_folder, prepare_folder):
        with disk.failing(number, PowerCut()), pytest.raises(PowerCut):
            replace_folder(place)
        disk.lose_unflushed()
        states.append(content(place))
        atomic.write_folder(place / "other", writer("other"))  # the next write cleans up
        assert sorted(path.name for path in place.iterdir()) == ["other", "step"]
        assert content(place) == states[-1]
    assert len(states) > 15
    assert states == sorted(states, reverse=True)  # first old, from one call on new
    assert set(states) == {"old", "new"}


def test_a_power_cut_at_any_call_leaves_no_folder_or_a_complete_one(tmp_path: Path) -> None:
    states = []
    for place, disk, number in every_call(tmp_path, replace_folder, Path.mkdir):
        with disk.failing(number, PowerCut()), pytest.raises(PowerCut):
            replace_folder(place)
        disk.lose_unflushed()
        states.append(content(place))
    assert set(states) == {None, "new"}


def test_a_power_cut_at_any_call_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    states = []
    for place, disk, number in every_call(tmp_path, replace_file, prepare_file):
        with disk.failing(number, PowerCut()), pytest.raises(PowerCut):
            replace_file(place)
        disk.lose_unflushed()
        states.append((place / "file").read_text())
        replace_file(place)
        assert [path.name for path in place.iterdir()] == ["file"]
        assert (place / "file").read_text() == "new"
    assert set(states) == {"old", "new"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.ESTALE])
def test_an_error_at_any_call_leaves_the_old_or_the_new_folder_and_no_leftovers(tmp_path: Path, code: int) -> None:
    for place, disk, number in every_call(tmp_path, replace_folder, prepare_folder):
        # If the clean-up fails too, the next write does it.
        with suppress(OSError), disk.failing(number, OSError(code, os.strerror(code))):
            replace_folder(place)
        assert content(place) in ("old", "new")
        atomic.recover(place)
        assert [path.name for path in place.iterdir()] == ["step"]


def test_an_error_at_any_call_leaves_the_old_or_the_new_file_and_no_leftovers(tmp_path: Path) -> None:
    for place, disk, number in every_call(tmp_path, replace_file, prepare_file):
        with disk.failing(number, OSError(errno.EIO, "Input/output error")), pytest.raises(OSError, match="Input"):
            replace_file(place)
        assert (place / "file").read_text() in ("old", "new")
        assert [path.name for path in place.iterdir()] == ["file"]


def fill_disk(aside: Path) -> None:
    """Write some bytes, then fail as a full disk does."""
    target = aside / "a" if aside.is_dir() else aside
    target.write_text("half of")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_previous_versions_and_nothing_else(parent: Path) -> None:
    atomic.write_text(parent.parent / "file", "old")
    with pytest.raises(OSError, match="No space left"):
        atomic.write_folder(parent / "step", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_file(parent.parent / "file", fill_disk)
    assert content(parent) == "old"
    assert [path.name for path in parent.iterdir()] == ["step"]
    assert (parent.parent / "file").read_text() == "old"
    assert sorted(path.name for path in parent.parent.iterdir()) == ["all", "file"]


def test_bytes_reach_the_disk_before_names_do(tmp_path: Path) -> None:
    prepare_file(tmp_path / "files")
    calls = record_calls(tmp_path, lambda: replace_file(tmp_path / "files"))
    assert [call for call in calls if call != "open"] == ["fsync", "replace", "fsync"]
    calls = record_calls(tmp_path, lambda: replace_folder(tmp_path))
    # fsync of two files, the manifest and their folder; then the rename; then fsync of the parent
    assert [call for call in calls if call in ("fsync", "rename")] == ["fsync"] * 4 + ["rename", "fsync"]


def test_a_kill_between_the_two_renames_leaves_the_old_folder(parent: Path) -> None:
    os.rename(parent / "step", parent / ".step.old")
    assert content(parent) == "old"
    assert atomic.committed_folders(parent, "s*") == {"step": parent / ".step.old"}
    atomic.recover(parent)
    assert [path.name for path in parent.iterdir()] == ["step"]


def test_an_interrupted_removal_leaves_all_or_nothing(tmp_path: Path) -> None:
    def remove(place: Path) -> None:
        atomic.remove_folder(place / "step")

    for place, disk, number in every_call(tmp_path, remove, prepare_folder):
        with disk.failing(number, PowerCut()), pytest.raises(PowerCut):
            remove(place)
        assert content(place) in ("old", None)
        atomic.recover(place)
        assert [path.name for path in place.iterdir()] in ([], ["step"])


def test_a_file_system_that_cannot_flush_folders_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_folder(tmp_path)
    assert content(tmp_path) == "new"


def test_nothing_is_ordered_by_time(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        atomic.write_folder(tmp_path / f"step-{step}", writer("new"))
        os.utime(tmp_path / f"step-{step}", (10 - step, 10 - step))  # the clock goes backwards
    assert list(atomic.committed_folders(tmp_path, "step-*")) == ["step-1", "step-2", "step-3"]


def files_of(names: dict[str, Any]) -> str:
    return json.dumps({"files": names})


DIGEST = "0" * 64
MANIFESTS = {
    "nothing": "",
    "cut": '{"files": {"a"',
    "another type": "[]",
    "a number": "7",
    "null": "null",
    "no files": "{}",
    "files is a list": '{"files": ["a", "b"]}',
    "files is empty": '{"files": {}}',
    "in the parent": files_of({"../x": DIGEST}),
    "the parent": files_of({"..": DIGEST}),
    "the folder": files_of({".": DIGEST}),
    "an empty name": files_of({"": DIGEST}),
    "absolute": files_of({"/etc/passwd": DIGEST}),
    "in a subfolder": files_of({"deeper/a": DIGEST}),
    "a zero byte": files_of({"a\0": DIGEST}),
    "half a character": '{"files": {"\\ud800": "' + DIGEST + '"}}',
    "a long name": files_of({"a" * 100_000: DIGEST}),
    "the manifest itself": files_of({"manifest.json": DIGEST}),
    "a number for a hash": files_of({"a": 7}),
    "a list for a hash": files_of({"a": [DIGEST]}),
    "a short hash": files_of({"a": "00"}),
    "another hash": files_of({"a": DIGEST, "b": DIGEST}),
    "fewer files": files_of({"c": DIGEST}),
    "huge": files_of({str(number): DIGEST for number in range(20_000)}),
    "nested": '{"files": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "a huge number": '{"files": ' + "9" * 500_000 + "}",
}


@pytest.mark.parametrize("manifest_text", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_foreign_manifest_is_an_integrity_error_and_nothing_else_is_read(
    parent: Path, manifest_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = pathlib.Path.open

    def record_path(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path)
        return real(path, *args, **kwargs)

    (parent / "step" / "manifest.json").write_text(manifest_text)
    monkeypatch.setattr(pathlib.Path, "open", record_path)
    assert atomic.integrity_error(parent / "step", required=("a",))
    assert {path.parent for path in opened} == {parent / "step"}


def test_a_manifest_that_is_not_utf8_is_an_integrity_error(parent: Path) -> None:
    (parent / "step" / "manifest.json").write_bytes(b"\xff\xfe{}")
    assert atomic.integrity_error(parent / "step") == "manifest.json is not valid JSON"


def test_each_integrity_error_has_its_message(parent: Path) -> None:
    step = parent / "step"
    assert atomic.integrity_error(step) is None
    assert atomic.integrity_error(step, required=("c",)) == "manifest.json does not name c"
    (step / "b").write_text("edited")
    assert atomic.integrity_error(step) == "b is not what was written"
    (step / "b").unlink()
    assert atomic.integrity_error(step) == "b cannot be read (No such file or directory)"
    (step / "b").symlink_to("/dev/zero")
    assert atomic.integrity_error(step) == "b cannot be read (not a regular file)"
    (step / "b").unlink()
    os.mkfifo(step / "b")
    assert atomic.integrity_error(step) == "b cannot be read (not a regular file)"
    assert atomic.integrity_error(parent / "none") == "manifest.json cannot be read (No such file or directory)"


def test_a_fuzzed_manifest_is_read_or_is_an_integrity_error(tmp_path: Path) -> None:
    atomic.write_folder(tmp_path / "one", lambda aside: (aside / "a").write_text("a"))
    manifest = tmp_path / "one" / atomic.MANIFEST

    def read(data: bytes) -> None:
        manifest.write_bytes(data)
        atomic.integrity_error(tmp_path / "one", ["a"])

    fuzz_reader(read, manifest.read_bytes())
