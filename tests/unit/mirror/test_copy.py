"""A copy in remote storage: complete at every moment, and restored byte by byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.mirror.copy import FolderCopy
from melanoma_dist.storage import atomic

from ..hostile import fuzz_reader
from .storage import Flaky, checkpoint, read_all_files


class MirroredFolder:
    """A folder, its copy, and places to restore it to."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        self.tmp_path, self.url, self.root = tmp_path, url, tmp_path / "here"
        self.root.mkdir()
        self.messages: list[str] = []
        self.copy = self.open_copy(self.root)

    def open_copy(self, root: Path) -> FolderCopy:
        return FolderCopy(self.url, root, lambda path: not path.startswith("private"), self.messages.append)

    def restore(self, last: tuple[str, ...] = ()) -> tuple[dict[str, bytes], list[str]]:
        """Restore on another machine; return its files and the paths reported as corrupt."""
        place = self.tmp_path / f"there-{len(list(self.tmp_path.iterdir()))}"
        place.mkdir()
        copy = self.open_copy(place)
        newest = copy.newest()
        corrupt = [] if newest is None else copy.restore(newest, last)
        return read_all_files(place), corrupt


@pytest.fixture(params=["file", "memory", "flaky"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MirroredFolder]:
    Flaky.reset()
    urls = {
        "file": f"file://{tmp_path}/bucket/run",
        "memory": f"memory://{tmp_path.name}/run",
        "flaky": "flaky://b/run",
    }
    yield MirroredFolder(tmp_path, urls[request.param])
    Flaky.reset()


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[MirroredFolder]:
    Flaky.reset()
    yield MirroredFolder(tmp_path, "flaky://b/run")
    Flaky.reset()


def object_paths() -> list[str]:
    return sorted(path for path in Flaky.store if "/objects/" in path)


def manifest_paths() -> list[str]:
    return sorted(path for path in Flaky.store if "/manifests/" in path)


def test_a_restored_folder_equals_the_original(folder: MirroredFolder) -> None:
    root = folder.root
    assert folder.restore() == ({}, [])
    (root / "record.json").write_text("{}")
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "empty").write_bytes(b"")
    (root / "private").write_text("belongs to another part")
    (root / "half.tmp").write_text("unfinished")
    checkpoint(root, "epoch-1", "one")
    (root / "checkpoints" / ".epoch-2.tmp").mkdir()
    (root / "checkpoints" / ".epoch-2.tmp" / "state.pt").write_text("unfinished")
    assert folder.copy.update()
    files, corrupt = folder.restore()
    assert corrupt == []
    expected = {path: content for path, content in read_all_files(root).items() if not path.startswith("private")}
    assert files == {path: content for path, content in expected.items() if ".tmp" not in path}
    assert "checkpoints/epoch-1/manifest.json" in files
    assert not folder.copy.update()
    assert folder.messages == []


def test_another_process_continues_the_same_copy(folder: MirroredFolder) -> None:
    (folder.root / "a").write_text("one")
    folder.copy.update()
    other = folder.open_copy(folder.root)
    assert not other.update()
    (folder.root / "a").write_text("other")
    assert other.update()
    assert folder.restore()[0] == {"a": b"other"}


def test_only_new_files_are_uploaded_and_old_objects_are_deleted_last(flaky: MirroredFolder) -> None:
    for number in range(6):
        checkpoint(flaky.root, f"epoch-{number}", f"state {number}")
        if number > 1:
            atomic.remove_folder(flaky.root / "checkpoints" / f"epoch-{number - 2}")
        Flaky.calls.clear()
        flaky.copy.update()
        written = [call for call in Flaky.calls if call.startswith("wb")]
        assert len(written) == 3  # state, its manifest, the copy's manifest
        assert "/manifests/" in written[-1]
        deleted = [position for position, call in enumerate(Flaky.calls) if call.startswith("rm")]
        assert all(position > Flaky.calls.index(written[-1]) for position in deleted)
    assert len(manifest_paths()) == 2
    assert len(object_paths()) == 6  # two checkpoints, and the one of the previous manifest
    assert {"checkpoints/epoch-4/state.pt", "checkpoints/epoch-5/state.pt"} <= flaky.restore()[0].keys()


def test_after_any_failed_call_the_copy_is_complete_and_the_next_update_succeeds(tmp_path: Path) -> None:
    number = 0
    while True:
        Flaky.reset()
        place = tmp_path / str(number)
        place.mkdir()
        folder = MirroredFolder(place, "flaky://b/run")
        checkpoint(folder.root, "epoch-1", "one")
        folder.copy.update()
        before = folder.restore()
        checkpoint(folder.root, "epoch-2", "two")
        atomic.remove_folder(folder.root / "checkpoints" / "epoch-1")
        count = [0]

        def fail(_: str, count: list[int] = count, number: int = number) -> None:
            if count[0] == number:
                Flaky.refusals = 1
            count[0] += 1

        Flaky.on_call = staticmethod(fail)
        failed = True
        with suppress(ConnectionError):
            folder.copy.update()
            failed = False
        Flaky.on_call = staticmethod(lambda _: None)
        assert folder.restore() in (before, (read_all_files(folder.root), []))
        folder.copy.update()
        assert folder.restore() == (read_all_files(folder.root), [])
        number += 1
        if not failed:
            break
    assert number > 6


@pytest.mark.parametrize("truncations", [1, 2, 3])
def test_a_truncated_upload_is_detected(flaky: MirroredFolder, truncations: int) -> None:
    (flaky.root / "a").write_text("first")
    flaky.copy.update()
    before = flaky.restore()
    (flaky.root / "b").write_text("second " * 100)
    Flaky.truncations = truncations
    for _ in range(truncations):
        with pytest.raises(OSError, match="bytes were written, but the storage holds"):
            flaky.copy.update()
        assert flaky.restore() == before
    flaky.copy.update()
    assert flaky.restore()[0] == read_all_files(flaky.root)


def test_a_truncated_manifest_falls_back_to_the_one_before(flaky: MirroredFolder) -> None:
    (flaky.root / "a").write_text("first")
    flaky.copy.update()
    before = flaky.restore()
    (flaky.root / "a").write_text("other")
    flaky.copy.update()
    newest = Flaky.store[manifest_paths()[-1]]
    newest.truncate(10)
    flaky.messages.clear()
    assert flaky.restore() == before
    assert "00000002-" in flaky.messages[0]
    assert "is corrupt (it is not what was written); falling back to the manifest before it" in flaky.messages[0]
    other = flaky.open_copy(flaky.root)
    assert other.update()
    assert flaky.restore()[0] == {"a": b"other"}


def corrupt_object(text: bytes) -> None:
    for path in object_paths():
        if Flaky.store[path].getvalue() == text:
            Flaky.store[path].seek(0)
            Flaky.store[path].write(b"X")


def test_a_corrupt_object_costs_its_checkpoint_and_nothing_else(flaky: MirroredFolder) -> None:
    checkpoint(flaky.root, "epoch-1", "one")
    checkpoint(flaky.root, "epoch-2", "two")
    flaky.copy.update()
    corrupt_object(b"two")
    files, corrupt = flaky.restore()
    assert corrupt == ["checkpoints/epoch-2"]
    assert {path.split("/")[1] for path in files} == {"epoch-1"}


@pytest.mark.parametrize(("text", "finished"), [(b"weights", False), (b"curves", True), (b"done", False)])
def test_completion_files_are_restored_only_if_everything_else_is(
    flaky: MirroredFolder, text: bytes, finished: bool
) -> None:
    for name, content in (("model", b"weights"), ("events.1", b"curves"), ("predictions", b"done")):
        (flaky.root / name).write_bytes(content)
    flaky.copy.update()
    corrupt_object(text)
    files, corrupt = flaky.restore(last=("predictions",))
    assert ("predictions" in files) is finished
    assert len(corrupt) == 1
    assert text not in files.values()


def test_deleted_objects_are_uploaded_again(flaky: MirroredFolder) -> None:
    (flaky.root / "a").write_text("one")
    flaky.copy.update()
    del Flaky.store[object_paths()[0]]
    assert flaky.restore()[1] == ["a"]
    assert flaky.copy.update()
    assert flaky.restore() == ({"a": b"one"}, [])


def test_a_missing_folder_does_not_empty_its_copy(flaky: MirroredFolder) -> None:
    (flaky.root / "a").write_text("one")
    flaky.copy.update()
    (flaky.root / "a").unlink()
    with pytest.raises(FileNotFoundError, match="is gone; its copy stays"):
        flaky.copy.update()
    assert flaky.restore()[0] == {"a": b"one"}


def test_a_checkpoint_corrupt_on_the_disk_is_not_copied(flaky: MirroredFolder) -> None:
    checkpoint(flaky.root, "epoch-1", "one")
    checkpoint(flaky.root, "epoch-2", "two")
    (flaky.root / "checkpoints" / "epoch-2" / "state.pt").write_text("edited")
    flaky.copy.update()
    assert {path.split("/")[1] for path in flaky.restore()[0]} == {"epoch-1"}


def test_a_checkpoint_deleted_during_its_upload_arrives(flaky: MirroredFolder) -> None:
    checkpoint(flaky.root, "epoch-1", "one")

    def delete(call: str) -> None:
        if call.startswith("wb") and (flaky.root / "checkpoints" / "epoch-1").exists():
            atomic.remove_folder(flaky.root / "checkpoints" / "epoch-1")

    Flaky.on_call = staticmethod(delete)
    flaky.copy.update()
    Flaky.on_call = staticmethod(lambda _: None)
    assert flaky.restore()[0]["checkpoints/epoch-1/state.pt"] == b"one"


def test_events_that_grow_during_their_upload_arrive_as_they_were(flaky: MirroredFolder) -> None:
    events = flaky.root / "events.1"
    events.write_bytes(b"first ")

    def grow(call: str) -> None:
        if call.startswith("wb"):
            with events.open("ab") as file:
                file.write(b"more ")

    Flaky.on_call = staticmethod(grow)
    flaky.copy.update()
    Flaky.on_call = staticmethod(lambda _: None)
    assert flaky.restore() == ({"events.1": b"first "}, [])
    flaky.copy.update()
    assert flaky.restore()[0]["events.1"] == b"first more more "


HASH = "0" * 64


@pytest.mark.parametrize("files", [
    {"../a": [HASH, 1]}, {"/etc/passwd": [HASH, 1]}, {"a/../b": [HASH, 1]}, {".hidden": [HASH, 1]}, {"a//b": [HASH, 1]},
    {"a\\b": [HASH, 1]}, {"": [HASH, 1]}, {"private": [HASH, 1]}, {"a": ["../../x", 1]}, {"a": [HASH]}, {"a": 7}, ["a"],
    {"a": [HASH, "many"]}, {"a": [HASH, float("inf")]}, 7, None,
])  # fmt: skip
def test_a_foreign_manifest_is_corrupt(flaky: MirroredFolder, files: Any) -> None:
    text = json.dumps({"files": files}).encode()
    flaky.copy._remote.write(f"manifests/00000001-{hashlib.sha256(text).hexdigest()}.json", [text], len(text))
    assert flaky.restore() == ({}, [])
    assert "is corrupt" in flaky.messages[0]


def test_a_fuzzed_manifest_is_read_or_corrupt(flaky: MirroredFolder) -> None:
    (flaky.root / "a").write_text("one")
    checkpoint(flaky.root, "epoch-1", "two")
    flaky.copy.update()
    (path,) = manifest_paths()
    content = Flaky.store[path].getvalue()

    def restore(data: bytes) -> None:
        Flaky.store.pop(manifest_paths()[0])
        name = f"manifests/00000001-{hashlib.sha256(data).hexdigest()}.json"
        flaky.copy._remote.write(name, [data], len(data))
        newest = flaky.copy.newest()
        assert newest is None or all(flaky.copy._includes(path) for path in newest.files)

    fuzz_reader(restore, content)
