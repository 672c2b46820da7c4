"""A preparation removes only files of a preparation, not files with such names."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from melanoma_dist.data import manifest
from melanoma_dist.data.output import remove_unfinished
from melanoma_dist.data.prepare import Request, plan, prepare
from melanoma_dist.data.shards import ShardWriter
from melanoma_dist.errors import DataError

from .conftest import Raw, small

FOREIGN = [
    "shard-000123.tar", "shard-00000.tar", "shard-1.tar", "shard-٠٠٠٠٠.tar", "manifest.parquet", "manifest.parquet.bak",
    "dataset.json.mine", "dataset.json.tmp", "journal.jsonl.tmp", "plan.parquet.tmp2",
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_named_almost_like_ours_is_refused_by_its_name(name: str, raw: Raw, out: Path) -> None:
    raw.image_2017(1)
    out.mkdir()
    (out / name).write_text("years of work")
    with pytest.raises(DataError, match=rf"contains other files \({name}\)"):
        prepare(Request(raw.folder, ("2017",)), out)
    with pytest.raises(DataError, match=rf"contains other files \({name}\)"):
        plan(Request(raw.folder, ("2017",)), out)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "years of work"


@pytest.mark.parametrize("name", ["shard-00000.tar", "manifest.parquet", "dataset.json", "journal.jsonl"])
def test_a_folder_named_like_a_file_of_ours_is_refused(name: str, raw: Raw, out: Path) -> None:
    raw.image_2017(1)
    (out / name).mkdir(parents=True)
    with pytest.raises(DataError, match=rf"contains other files \({name}/\)"):
        prepare(Request(raw.folder, ("2017",)), out)


def test_a_link_named_like_a_shard_is_not_written_through(raw: Raw, out: Path, tmp_path: Path) -> None:
    raw.image_2017(1)
    (tmp_path / "mine.tar").write_text("mine")
    out.mkdir()
    (out / "journal.jsonl").write_text('{"request": "0"}\n')
    (out / "shard-00000.tar").symlink_to(tmp_path / "mine.tar")
    with pytest.raises(DataError, match=r"contains other files \(shard-00000\.tar\)"):
        prepare(Request(raw.folder, ("2017",)), out)
    assert (tmp_path / "mine.tar").read_text() == "mine"


@pytest.mark.parametrize("text", ["dear diary\n", '{"event": 1}\n', "[]\n", '{"request": "0", "of": "mine"}\n'])
def test_a_foreign_journal_is_refused(text: str, raw: Raw, out: Path) -> None:
    raw.image_2017(1)
    out.mkdir()
    (out / "journal.jsonl").write_text(text)
    (out / "shard-00000.tar").write_text("mine")
    with pytest.raises(DataError, match=r"contains other files \(journal\.jsonl, shard-00000\.tar\)"):
        prepare(Request(raw.folder, ("2017",)), out)
    assert (out / "journal.jsonl").read_text() == text


def test_files_of_an_unfinished_preparation_are_removed(raw: Raw, out: Path) -> None:
    small(raw, out)
    shutil.copy(out / "manifest.parquet", out / "joins.parquet.tmp")
    (out / manifest.JOURNAL).write_text('{"request": "of something else"}\n')
    (out / manifest.DESCRIPTION).rename(out / "dataset.json.tmp")
    remove_unfinished(out)
    assert [path.name for path in out.iterdir()] == [manifest.JOURNAL]
    assert len(prepare(Request(raw.folder, ("2017",), size=24), out).manifest) == 4
    assert {path.name for path in out.iterdir()} == {
        "dataset.json", "manifest.parquet", "joins.parquet", "missing.parquet", "quarantine.parquet", "shard-00000.tar",
    }  # fmt: skip


def test_a_preparation_follows_its_plan_in_the_same_folder(raw: Raw, out: Path) -> None:
    raw.image_2017(1)
    plan(Request(raw.folder, ("2017",)), out)
    prepare(Request(raw.folder, ("2017",)), out)
    assert not (out / manifest.PLAN).exists()


def test_a_data_set_without_its_description_is_not_removed(raw: Raw, out: Path) -> None:
    """It may be an incomplete copy: only its owner deletes it, as both messages say."""
    small(raw, out)
    (out / manifest.DESCRIPTION).unlink()
    with pytest.raises(DataError, match=r"there is no dataset\.json. Copy it again, or: Delete the data set's folder"):
        manifest.load_dataset(out)
    with pytest.raises(DataError, match=r"joins\.parquet.*delete this one"):
        prepare(Request(raw.folder, ("2017",), size=24), out)
    assert (out / "shard-00000.tar").exists()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free space, then run the same command again"),
        (errno.EDQUOT, "Free space, then run the same command again"),
        (errno.EFBIG, r"Shards have 256 MiB, and the disk or `ulimit -f` allows no such files"),
        (errno.EROFS, "Choose another folder"),
    ],
)
def test_errors_of_the_disk_come_with_a_remedy(
    number: int, advice: str, raw: Raw, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(ShardWriter, "add", refuse)
    with pytest.raises(DataError, match=advice):
        small(raw, out)
    monkeypatch.undo()
    assert json.loads((out / "journal.jsonl").read_text()).keys() == {"request"}
    assert len(prepare(Request(raw.folder, ("2017",), size=24), out).manifest) == 4
