"""A copy in a storage: whole at every moment, and what comes back is what was there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.mirror.copy import Copy
from melanoma_dist.storage import atomic

from ..hostile import require_read_or_refused
from .storage import Flaky, checkpoint, everything


class Mirrored:
    """A folder, its copy, and places to bring it back to."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        self.tmp_path, self.url, self.root = tmp_path, url, tmp_path / "here"
        self.root.mkdir()
        self.told: list[str] = []
        self.copy = self.again(self.root)

    def again(self, root: Path) -> Copy:
        return Copy(self.url, root, lambda path: not path.startswith("private"), self.told.append)

    def back(self, last: tuple[str, ...] = ()) -> tuple[dict[str, bytes], list[str]]:
        """What another machine gets, and what it is told is damaged."""
        place = self.tmp_path / f"there-{len(list(self.tmp_path.iterdir()))}"
        place.mkdir()
        copy = self.again(place)
        newest = copy.newest()
        damaged = [] if newest is None else copy.restore(newest, last)
        return everything(place), damaged


@pytest.fixture(params=["file", "memory", "flaky"])
def mirrored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirrored]:
    Flaky.clean()
    urls = {
        "file": f"file://{tmp_path}/bucket/run",
        "memory": f"memory://{tmp_path.name}/run",
        "flaky": "flaky://b/run",
    }
    yield Mirrored(tmp_path, urls[request.param])
    Flaky.clean()


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[Mirrored]:
    Flaky.clean()
    yield Mirrored(tmp_path, "flaky://b/run")
    Flaky.clean()


def objects() -> list[str]:
    return sorted(path for path in Flaky.store if "/objects/" in path)


def manifests() -> list[str]:
    return sorted(path for path in Flaky.store if "/manifests/" in path)


def test_what_comes_back_is_what_was_there(mirrored: Mirrored) -> None:
    root = mirrored.root
    assert mirrored.back() == ({}, [])
    (root / "record.json").write_text("{}")
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "empty").write_bytes(b"")
    (root / "private").write_text("of another part")
    (root / "half.tmp").write_text("unfinished")
    checkpoint(root, "epoch-1", "one")
    (root / "checkpoints" / ".epoch-2.tmp").mkdir()
    (root / "checkpoints" / ".epoch-2.tmp" / "state.pt").write_text("unfinished")
    assert mirrored.copy.update()
    found, damaged = mirrored.back()
    assert damaged == []
    mine = {path: content for path, content in everything(root).items() if not path.startswith("private")}
    assert found == {path: content for path, content in mine.items() if ".tmp" not in path}
    assert "checkpoints/epoch-1/manifest.json" in found
    assert not mirrored.copy.update()
    assert mirrored.told == []


def test_another_process_goes_on_with_the_same_copy(mirrored: Mirrored) -> None:
    (mirrored.root / "a").write_text("one")
    mirrored.copy.update()
    other = mirrored.again(mirrored.root)
    assert not other.update()
    (mirrored.root / "a").write_text("other")
    assert other.update()
    assert mirrored.back()[0] == {"a": b"other"}


def test_only_what_is_new_is_uploaded_and_what_is_old_is_deleted_at_last(flaky: Mirrored) -> None:
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
    assert len(manifests()) == 2
    assert len(objects()) == 6  # two checkpoints, and the one that the manifest before names
    assert {"checkpoints/epoch-4/state.pt", "checkpoints/epoch-5/state.pt"} <= flaky.back()[0].keys()


def test_whatever_call_fails_the_copy_is_whole_and_the_next_attempt_ends_well(tmp_path: Path) -> None:
    number = 0
    while True:
        Flaky.clean()
        place = tmp_path / str(number)
        place.mkdir()
        mirrored = Mirrored(place, "flaky://b/run")
        checkpoint(mirrored.root, "epoch-1", "one")
        mirrored.copy.update()
        before = mirrored.back()
        checkpoint(mirrored.root, "epoch-2", "two")
        atomic.remove_folder(mirrored.root / "checkpoints" / "epoch-1")
        count = [0]

        def fail(_: str, count: list[int] = count, number: int = number) -> None:
            if count[0] == number:
                Flaky.refusals = 1
            count[0] += 1

        Flaky.after = staticmethod(fail)
        failed = True
        with suppress(ConnectionError):
            mirrored.copy.update()
            failed = False
        Flaky.after = staticmethod(lambda _: None)
        assert mirrored.back() in (before, (everything(mirrored.root), []))
        mirrored.copy.update()
        assert mirrored.back() == (everything(mirrored.root), [])
        number += 1
        if not failed:
            break
    assert number > 6


@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_an_upload_that_is_cut_short_is_noticed(flaky: Mirrored, cuts: int) -> None:
    (flaky.root / "a").write_text("first")
    flaky.copy.update()
    before = flaky.back()
    (flaky.root / "b").write_text("second " * 100)
    Flaky.cuts = cuts
    for _ in range(cuts):
        with pytest.raises(OSError, match="bytes were written and"):
            flaky.copy.update()
        assert flaky.back() == before
    flaky.copy.update()
    assert flaky.back()[0] == everything(flaky.root)


def test_a_manifest_that_is_cut_short_falls_back_to_the_one_before(flaky: Mirrored) -> None:
    (flaky.root / "a").write_text("first")
    flaky.copy.update()
    before = flaky.back()
    (flaky.root / "a").write_text("other")
    flaky.copy.update()
    newest = Flaky.store[manifests()[-1]]
    newest.truncate(10)
    flaky.told.clear()
    assert flaky.back() == before
    assert "00000002-" in flaky.told[0]
    assert "is damaged (it is not what was written); the one before it counts" in flaky.told[0]
    other = flaky.again(flaky.root)
    assert other.update()
    assert flaky.back()[0] == {"a": b"other"}


def damage(text: bytes) -> None:
    for path in objects():
        if Flaky.store[path].getvalue() == text:
            Flaky.store[path].seek(0)
            Flaky.store[path].write(b"X")


def test_a_damaged_object_takes_its_checkpoint_with_it_and_nothing_else(flaky: Mirrored) -> None:
    checkpoint(flaky.root, "epoch-1", "one")
    checkpoint(flaky.root, "epoch-2", "two")
    flaky.copy.update()
    damage(b"two")
    found, damaged = flaky.back()
    assert damaged == ["checkpoints/epoch-2"]
    assert {path.split("/")[1] for path in found} == {"epoch-1"}


@pytest.mark.parametrize(("text", "finished"), [(b"weights", False), (b"curves", True), (b"done", False)])
def test_what_says_that_all_is_finished_comes_only_if_all_is(flaky: Mirrored, text: bytes, finished: bool) -> None:
    for name, content in (("model", b"weights"), ("events.1", b"curves"), ("predictions", b"done")):
        (flaky.root / name).write_bytes(content)
    flaky.copy.update()
    damage(text)
    found, damaged = flaky.back(last=("predictions",))
    assert ("predictions" in found) is finished
    assert len(damaged) == 1
    assert text not in found.values()


def test_objects_that_somebody_deleted_are_uploaded_again(flaky: Mirrored) -> None:
    (flaky.root / "a").write_text("one")
    flaky.copy.update()
    del Flaky.store[objects()[0]]
    assert flaky.back()[1] == ["a"]
    assert flaky.copy.update()
    assert flaky.back() == ({"a": b"one"}, [])


def test_a_folder_that_vanishes_does_not_empty_its_copy(flaky: Mirrored) -> None:
    (flaky.root / "a").write_text("one")
    flaky.copy.update()
    (flaky.root / "a").unlink()
    with pytest.raises(FileNotFoundError, match="is gone; its copy stays"):
        flaky.copy.update()
    assert flaky.back()[0] == {"a": b"one"}


def test_a_checkpoint_that_is_damaged_here_is_not_copied(flaky: Mirrored) -> None:
    checkpoint(flaky.root, "epoch-1", "one")
    checkpoint(flaky.root, "epoch-2", "two")
    (flaky.root / "checkpoints" / "epoch-2" / "state.pt").write_text("edited")
    flaky.copy.update()
    assert {path.split("/")[1] for path in flaky.back()[0]} == {"epoch-1"}


def test_a_checkpoint_that_is_deleted_while_it_is_uploaded_arrives(flaky: Mirrored) -> None:
    checkpoint(flaky.root, "epoch-1", "one")

    def delete(call: str) -> None:
        if call.startswith("wb") and (flaky.root / "checkpoints" / "epoch-1").exists():
            atomic.remove_folder(flaky.root / "checkpoints" / "epoch-1")

    Flaky.after = staticmethod(delete)
    flaky.copy.update()
    Flaky.after = staticmethod(lambda _: None)
    assert flaky.back()[0]["checkpoints/epoch-1/state.pt"] == b"one"


def test_events_that_grow_while_they_are_uploaded_arrive_as_they_were(flaky: Mirrored) -> None:
    events = flaky.root / "events.1"
    events.write_bytes(b"first ")

    def grow(call: str) -> None:
        if call.startswith("wb"):
            with events.open("ab") as file:
                file.write(b"more ")

    Flaky.after = staticmethod(grow)
    flaky.copy.update()
    Flaky.after = staticmethod(lambda _: None)
    assert flaky.back() == ({"events.1": b"first "}, [])
    flaky.copy.update()
    assert flaky.back()[0]["events.1"] == b"first more more "


HASH = "0" * 64


@pytest.mark.parametrize("files", [
    {"../a": [HASH, 1]}, {"/etc/passwd": [HASH, 1]}, {"a/../b": [HASH, 1]}, {".hidden": [HASH, 1]}, {"a//b": [HASH, 1]},
    {"a\\b": [HASH, 1]}, {"": [HASH, 1]}, {"private": [HASH, 1]}, {"a": ["../../x", 1]}, {"a": [HASH]}, {"a": 7}, ["a"],
    {"a": [HASH, "many"]}, {"a": [HASH, float("inf")]}, 7, None,
])  # fmt: skip
def test_a_manifest_that_cannot_be_ours_is_damage(flaky: Mirrored, files: Any) -> None:
    text = json.dumps({"files": files}).encode()
    flaky.copy._store.write(f"manifests/00000001-{hashlib.sha256(text).hexdigest()}.json", [text], len(text))
    assert flaky.back() == ({}, [])
    assert "is damaged" in flaky.told[0]


def test_a_damaged_manifest_is_whole_or_damage(flaky: Mirrored) -> None:
    (flaky.root / "a").write_text("one")
    checkpoint(flaky.root, "epoch-1", "two")
    flaky.copy.update()
    (path,) = manifests()
    whole = Flaky.store[path].getvalue()

    def back(data: bytes) -> None:
        Flaky.store.pop(manifests()[0])
        name = f"manifests/00000001-{hashlib.sha256(data).hexdigest()}.json"
        flaky.copy._store.write(name, [data], len(data))
        newest = flaky.copy.newest()
        assert newest is None or all(flaky.copy._belongs(path) for path in newest.files)

    require_read_or_refused(back, whole)
