"""Data sets by URL: copied once per node, atomically, and reused."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from melanoma_dist.data import node_copies
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.manifest import DESCRIPTION, FILES, MANIFEST, Dataset, load_dataset
from melanoma_dist.data.node_copies import local_copy, resolve_source
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage.locks import wait_for_lock

SHARD = "shard-00000.tar"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELANOMA_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote(dataset: Dataset, tmp_path: Path) -> Path:
    """A folder that stands for a bucket; tests may change it."""
    folder = tmp_path / "bucket" / "isic"
    shutil.copytree(dataset.folder, folder)
    return folder


def url(folder: Path) -> str:
    return f"file://{folder}"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def read_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the data files read from the storage."""
    names: list[str] = []
    real = node_copies._RemoteDataset.read_blocks

    def record_name(self: Any, name: str) -> Any:
        names.append(name)
        return real(self, name)

    monkeypatch.setattr(node_copies._RemoteDataset, "read_blocks", record_name)
    return names


def test_a_local_folder_is_used_as_it_is(tmp_path: Path, cache: Path) -> None:
    assert local_copy(str(tmp_path)) == tmp_path
    assert not cache.exists()


def test_other_nodes_get_the_url_or_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_source("s3://bucket/isic", tmp_path / "copy") == "s3://bucket/isic"
    assert resolve_source("data", Path("data")) == str(tmp_path / "data")
    assert resolve_source(None, Path("demo")) == str(tmp_path / "demo")


def test_a_copy_equals_the_data_set_and_is_made_once(
    dataset: Dataset, remote: Path, cache: Path, read_names: list[str]
) -> None:
    (remote / "notes.txt").write_text("not of the data set")
    copied = open_dataset(url(remote) + "/")
    assert copied.folder == cache / "copies" / f"isic-{dataset.fingerprint[:16]}"
    assert copied.fingerprint == dataset.fingerprint
    assert files(copied.folder) == files(dataset.folder)
    assert set(read_names) == set(files(dataset.folder))
    read_names.clear()
    assert local_copy(url(remote)) == copied.folder
    assert read_names == []
    assert [path.name for path in copied.folder.parent.iterdir() if path.suffix == ".part"] == []


def test_a_copy_whose_fingerprint_is_known_needs_no_storage(dataset: Dataset, remote: Path) -> None:
    copied = local_copy(url(remote))
    shutil.rmtree(remote)
    assert local_copy(url(remote), dataset.fingerprint) == copied
    with pytest.raises(ConfigError, match=r"there is no .*dataset\.json"):
        local_copy(url(remote))


def test_any_fsspec_storage_works(dataset: Dataset) -> None:
    storage = fsspec.filesystem("memory")
    storage.put(str(dataset.folder), "/bucket/isic", recursive=True)
    try:
        assert load_dataset(local_copy("memory://bucket/isic")).fingerprint == dataset.fingerprint
    finally:
        storage.rm("/bucket", recursive=True)


def test_changed_data_gets_another_copy(remote: Path) -> None:
    first = local_copy(url(remote))
    description = json.loads((remote / DESCRIPTION).read_text())
    (remote / DESCRIPTION).write_text(json.dumps({**description, "fingerprint": "0" * 64}))
    with pytest.raises(DataError, match="not a complete data set, and was deleted"):
        local_copy(url(remote))
    assert first.is_dir()
    assert [path for path in first.parent.iterdir() if path.is_dir()] == [first]


def test_a_killed_copy_resumes_after_its_last_complete_file(
    dataset: Dataset, remote: Path, cache: Path, read_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Any, name: str) -> Any:
        if name == SHARD:
            yield b"half"
            raise KeyboardInterrupt
        yield (remote / name).read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(node_copies._RemoteDataset, "read_blocks", killed)
        with pytest.raises(KeyboardInterrupt):
            local_copy(url(remote))
    part = cache / "copies" / f"isic-{dataset.fingerprint[:16]}.part"
    complete = {name for name in files(part) if not name.endswith(".tmp")}
    assert SHARD not in complete
    assert files(local_copy(url(remote))) == files(dataset.folder)
    assert set(read_names) == set(files(dataset.folder)) - complete


@pytest.mark.parametrize("name", [SHARD, MANIFEST])
def test_corrupt_bytes_never_become_a_copy(name: str, remote: Path, cache: Path) -> None:
    """The size stays the same; for a shard, only the CRC-32 of its images shows it."""
    content = bytearray((remote / name).read_bytes())
    third = len(content) // 3
    content[third : third + 64] = bytes(64)
    (remote / name).write_bytes(content)
    with pytest.raises(DataError, match="not a complete data set") as caught:
        local_copy(url(remote))
    assert url(remote) in str(caught.value)
    assert not [path for path in (cache / "copies").iterdir() if path.is_dir()]


def test_a_truncated_file_is_reported(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_copies._RemoteDataset, "read_blocks", lambda self, name: iter([b"x"]))
    with pytest.raises(DataError, match=r"bytes there, but 1 arrived"):
        local_copy(url(remote))


def test_free_space_is_checked_first(
    remote: Path, cache: Path, read_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"1 B are free.*MELANOMA_DIST_CACHE"):
        local_copy(url(remote))
    assert read_names == []


def test_a_cache_that_cannot_be_written_is_reported(remote: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(DataError, match="MELANOMA_DIST_CACHE"):
        local_copy(url(remote))


@pytest.mark.parametrize(
    ("source", "error", "expected"),
    [
        ("s3://bucket/isic", ImportError("Install s3fs"), "pip install s3fs"),
        ("gs://bucket/isic", ImportError("Install gcsfs"), "pip install gcsfs"),
        ("s3://bucket/isic", FileNotFoundError("no bucket"), "Check bucket and folder"),
        ("s3://bucket/isic", PermissionError("Forbidden"), "access is denied"),
        ("s3://bucket/isic", RuntimeError("Unable to locate credentials"), "access is denied"),
        ("s3://bucket/isic", TimeoutError("timed out"), "Check the network"),
    ],
)
def test_a_storage_error_becomes_one_message(
    source: str, error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise error

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(ConfigError) as caught:
        local_copy(source)
    assert str(caught.value).startswith(f"--data {source}: ")
    assert expected in str(caught.value)


def test_an_unknown_url_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the URL of a storage"):
        local_copy("s4://bucket/isic")
    with pytest.raises(ConfigError, match=r"Check bucket and folder"):
        local_copy(url(tmp_path / "nowhere"))


def test_an_invalid_fingerprint_names_no_folder(remote: Path, tmp_path: Path) -> None:
    description = json.loads((remote / DESCRIPTION).read_text())
    (remote / DESCRIPTION).write_text(json.dumps({**description, "fingerprint": "../../../elsewhere"}))
    with pytest.raises(DataError, match="must be 64 hexadecimal digits"):
        local_copy(url(remote))


def _rank(source: str, start: Callable[[], Any], results: Any) -> None:
    messages: list[str] = []
    start()
    folder = local_copy(source, log=messages.append)
    results.put((str(folder), messages))


def test_processes_that_start_together_copy_once(remote: Path, dataset: Dataset) -> None:
    context = multiprocessing.get_context("fork")
    results, barrier = context.Queue(), context.Barrier(4)
    ranks = [context.Process(target=_rank, args=(url(remote), barrier.wait, results)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    copies = [results.get(timeout=60) for _ in ranks]
    for rank in ranks:
        rank.join()
    assert len({folder for folder, _ in copies}) == 1
    assert sum("copying" in line for _, messages in copies for line in messages) == 1
    assert files(Path(copies[0][0])) == files(dataset.folder)


def test_a_process_that_waits_for_a_lock_is_told_why(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    is_locked, release = context.Event(), context.Event()

    def hold() -> None:
        with wait_for_lock(tmp_path / "lock", lambda: None):
            is_locked.set()
            release.wait(30)

    holder = context.Process(target=hold)
    holder.start()
    assert is_locked.wait(30)
    with wait_for_lock(tmp_path / "lock", release.set):  # the holder releases it only once someone waits
        assert release.is_set()
    holder.join()
    assert oct((tmp_path / "lock").stat().st_mode & 0o777) == "0o600"


def test_every_file_of_a_data_set_is_copied(dataset: Dataset) -> None:
    assert {name for name in os.listdir(dataset.folder) if not node_copies._SHARD.fullmatch(name)} <= set(FILES)
