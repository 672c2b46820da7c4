"""A file of tensors is loaded as PyTorch loads it, or refused: it takes no memory and runs no code."""

from __future__ import annotations

import io
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from melanoma_dist.storage.tensors import load_tensors

from ..hostile import fuzz_reader

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "rng": torch.get_rng_state(), "epoch": 3, "names": ["a", None]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(STATE, tmp_path / "state.pt")
    return tmp_path / "state.pt"


def rewrite(path: Path, change: Callable[[zipfile.ZipInfo, bytes], bytes] = lambda info, content: content) -> None:
    """Write an archive again with changed records, and with the end records that PyTorch writes."""
    with zipfile.ZipFile(path) as archive:
        records = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in records:
            archive.writestr(info, change(info, content))
    add_pytorch_end_records(path)


def add_pytorch_end_records(path: Path) -> None:
    """Add a 64-bit end record, which Python writes for large archives only."""
    content = path.read_bytes()
    end = content[-22:]
    count, size, start = end[10:12], end[12:16], end[16:20]
    wide = [part + bytes(8 - len(part)) for part in (count, count, size, start)]
    end64 = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12) + b"".join(wide)
    locator = b"PK\x06\x07" + bytes(4) + (len(content) - 22).to_bytes(8, "little") + (1).to_bytes(4, "little")
    path.write_bytes(content[:-22] + end64 + locator + end)


def test_what_pytorch_saved_is_loaded(saved: Path) -> None:
    loaded = load_tensors(saved)
    assert loaded.keys() == STATE.keys()
    assert torch.equal(loaded["weight"], STATE["weight"])  # type: ignore[arg-type]
    assert (loaded["epoch"], loaded["names"]) == (3, ["a", None])
    rewrite(saved)
    assert torch.equal(load_tensors(saved)["weight"], loaded["weight"])


def test_a_compressed_record_is_refused_before_it_grows(saved: Path) -> None:
    def deflated(info: zipfile.ZipInfo, content: bytes) -> bytes:
        info.compress_type = zipfile.ZIP_DEFLATED
        return bytes(2**24) if info.filename.endswith("data/0") else content

    rewrite(saved, deflated)
    assert saved.stat().st_size < 2**20
    with pytest.raises(ValueError, match="compressed"):
        load_tensors(saved)


def test_a_false_record_size_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    entry = content.rindex(b"PK\x01\x02")
    saved.write_bytes(content[: entry + 24] + (2**31).to_bytes(4, "little") + content[entry + 28 :])
    with pytest.raises(ValueError, match="another size than it has"):
        load_tensors(saved)


def test_records_that_share_their_bytes_are_refused(saved: Path) -> None:
    content = saved.read_bytes()
    list_size, list_start = (int.from_bytes(content[at : at + 8], "little") for at in (-58, -50))
    listed = content[list_start : list_start + list_size] * 40
    count = len(zipfile.ZipFile(saved).namelist()) * 40
    end = (b"\xff\xff" * 2) + (b"\xff" * 8)
    end64 = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12)
    end64 += b"".join(number.to_bytes(8, "little") for number in (count, count, len(listed), list_start))
    locator = b"PK\x06\x07" + bytes(4) + (list_start + len(listed)).to_bytes(8, "little") + b"\1\0\0\0"
    saved.write_bytes(content[:list_start] + listed + end64 + locator + b"PK\x05\x06" + bytes(4) + end + bytes(2))
    with pytest.raises(ValueError, match="more bytes than the file has"):
        load_tensors(saved)


@pytest.mark.parametrize("hidden", [b"", b"x", bytes(98)], ids=["nothing", "a byte", "an end"])
def test_a_hidden_second_list_of_records_is_refused(saved: Path, hidden: bytes) -> None:
    """PyTorch follows the locator; Python looks just before it."""
    content = saved.read_bytes()
    elsewhere = (1).to_bytes(8, "little")
    saved.write_bytes(content[:-98] + hidden + content[-98:-34] + elsewhere + content[-26:])
    with pytest.raises(ValueError, match="not in the format of PyTorch"):
        load_tensors(saved)
    saved.write_bytes(content + b"a comment")
    with pytest.raises(ValueError, match="not in the format of PyTorch"):
        load_tensors(saved)


def as_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return file.getvalue()


def as_pickle() -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [as_tar(), as_pickle(), bytes(2048), b"", b"PK\x03\x04"],
    ids=["tar", "pickle", "empty tar", "empty", "torn"],
)
def test_older_formats_are_refused_and_nothing_is_unpacked(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(*_: Any, **__: Any) -> str:
        raise AssertionError("a temporary folder was made")

    monkeypatch.setattr(tempfile, "mkdtemp", unpack)
    (tmp_path / "old.pt").write_bytes(content)
    with pytest.raises(ValueError, match="save an older file again"):
        load_tensors(tmp_path / "old.pt")


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


@pytest.mark.parametrize("value", [Code(), Path("x")])
def test_a_value_that_is_not_plain_is_refused(
    value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": value}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        load_tensors(tmp_path / "code.pt")
    assert "code ran" not in capsys.readouterr().out


def test_only_regular_files_are_loaded(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "missing.pt"):
        with pytest.raises(ValueError, match="not a regular file"):
            load_tensors(path)


def test_an_unreadable_pickle_is_refused(saved: Path) -> None:
    def wrong(info: zipfile.ZipInfo, content: bytes) -> bytes:
        return pickle.dumps({"a": 1})[:-3] if info.filename.endswith("data.pkl") else content

    rewrite(saved, wrong)
    with pytest.raises(ValueError, match=r"."):
        load_tensors(saved)


def test_any_other_corruption_is_refused_in_one_way(saved: Path) -> None:
    def load(data: bytes) -> None:
        saved.write_bytes(data)
        load_tensors(saved)

    fuzz_reader(load, saved.read_bytes(), OSError, ValueError, examples=60)
