from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_dist.data.manifest import Dataset, fingerprint, load_dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.data.shards import ShardReader, ShardWriter
from melanoma_dist.data.splits import listed_in
from melanoma_dist.errors import DataError

from .conftest import Raw, small


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def by_id(dataset: Dataset) -> pd.DataFrame:
    return dataset.manifest.set_index("image_id")


def test_the_manifest_describes_the_prepared_images(raw: Raw, out: Path) -> None:
    manifest = small(raw, out).manifest
    assert list(manifest["image_id"]) == [f"ISIC_{number:07d}" for number in (1, 2, 3, 4)]
    assert list(manifest["split"]) == ["train"] * 3 + ["2017-test"]
    first = manifest.iloc[0]
    source = raw.folder / first["source"]
    assert first["source"] == "2017/ISIC-2017_Training_Data/ISIC_0000001.jpg"
    assert first["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert tuple(first[["width", "height", "source_width", "source_height"]]) == (32, 24, 48, 36)
    assert listed_in(manifest, "2017-test").tolist() == [False, False, False, True]


def test_the_same_files_give_the_same_bytes(raw: Raw, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small(raw, out)
    monkeypatch.setattr("melanoma_dist.data.decode._JOBS_PER_WORKER", 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    second = prepare(Request(raw.folder, ("2017",), size=24), out.with_name("again"))
    assert digests(out) == digests(second.folder)
    assert first.fingerprint == second.fingerprint


def test_a_holdout_takes_its_lesions_and_copies_out_of_training(raw: Raw, out: Path) -> None:
    raw.image_2017(1, part="Test_v2")
    raw.image_2017(2, seed=1)  # the same bytes as the test image
    raw.image_2017(3)
    raw.image_2017(5)
    raw.image_2019(1, lesion="MSK_1")
    raw.image_2019(4, lesion="MSK_1")
    raw.image_2019(2, lesion="MSK_2", seed=1)
    raw.image_2019(5, lesion="MSK_2")
    table = by_id(prepare(Request(raw.folder, ("2017", "2019"), size=24), out))
    why = "excluded: lesion or copy in 2017-test"
    assert table["split"].to_dict() == {
        "ISIC_0000001": "2017-test",
        "ISIC_0000002": why,
        "ISIC_0000003": "train",
        "ISIC_0000004": why,
        "ISIC_0000005": why,
    }
    assert table["group"].to_dict() == {
        **{f"ISIC_000000{number}": "MSK_1" for number in (1, 2, 4, 5)},
        "ISIC_0000003": "ISIC_0000003",
    }


def test_unreadable_files_are_quarantined_with_a_reason(
    raw: Raw, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw.image_2017(1)
    raw.image_2017(2)
    (raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000002.jpg").write_bytes(b"not a photograph")
    dataset = prepare(Request(raw.folder, ("2017",)), out)
    assert list(dataset.manifest["image_id"]) == ["ISIC_0000001"]
    row = pd.read_parquet(out / "quarantine.parquet").iloc[0]
    assert tuple(row) == ("ISIC_0000002", "2017/ISIC-2017_Training_Data/ISIC_0000002.jpg", "not an image")
    assert "quarantined 2017" in capsys.readouterr().out
    assert json.loads((out / "dataset.json").read_text())["quarantined"] == 1


def test_nothing_readable_is_an_error(raw: Raw, out: Path) -> None:
    raw.image_2017(1)
    (raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000001.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images can be decoded"):
        prepare(Request(raw.folder, ("2017",)), out)


def test_missing_files_need_allow_missing(raw: Raw, out: Path) -> None:
    for number in (1, 2):
        raw.image_2017(number)
    (raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000002.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 labelled images have no file.*ISIC_0000002.*--allow-missing"):
        prepare(Request(raw.folder, ("2017",)), out)
    assert not out.exists()
    assert len(prepare(Request(raw.folder, ("2017",), allow_missing=True), out).manifest) == 1
    (raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000001.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 2 labelled images have no file .* Images found there: none"):
        prepare(Request(raw.folder, ("2017",), allow_missing=True), out.with_name("b"))


def test_a_finished_folder_is_left_alone(raw: Raw, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = small(raw, out)
    before = digests(out)
    again = prepare(Request(raw.folder, ("2017",), size=24), out)
    assert "is finished: 4 images" in capsys.readouterr().out
    assert again.fingerprint == first.fingerprint
    assert digests(out) == before
    with pytest.raises(DataError, match="from other files or with other choices"):
        prepare(Request(raw.folder, ("2017",), size=20), out)
    image = raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000001.jpg"
    times = image.stat().st_atime_ns, image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes()[::-1])  # as long as before
    with pytest.raises(DataError, match="a rewritten file counts as another one"):
        prepare(Request(raw.folder, ("2017",), size=24), out)
    image.write_bytes(image.read_bytes()[::-1])
    os.utime(image, ns=times)
    prepare(Request(raw.folder, ("2017",), size=24), out)
    raw.image_2017(9)
    with pytest.raises(DataError, match="from other files or with other choices"):
        prepare(Request(raw.folder, ("2017",), size=24), out)
    assert digests(out) == before


def test_a_folder_with_other_files_is_not_touched(raw: Raw, out: Path) -> None:
    raw.image_2017(1)
    out.mkdir()
    (out / "thesis.docx").write_text("years of work")
    with pytest.raises(DataError, match=r"contains other files \(thesis.docx\)"):
        prepare(Request(raw.folder, ("2017",)), out)
    assert (out / "thesis.docx").exists()


def test_a_full_disk_is_one_message(raw: Raw, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(DataError, match=r"No space left on device.*Free space.*again to resume"):
        small(raw, out)


def test_an_output_that_cannot_be_a_folder_is_one_message(raw: Raw, tmp_path: Path) -> None:
    raw.image_2017(1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write the data set"):
        prepare(Request(raw.folder, ("2017",)), tmp_path / "file/out")


@pytest.mark.parametrize("column", ["group", "split", "MEL", "age", "source_sha256", "lesion_id"])
def test_an_edited_manifest_is_refused(raw: Raw, out: Path, column: str) -> None:
    manifest = small(raw, out).manifest.copy()
    others = {"age": 7, "MEL": 1.0, "source_sha256": "0" * 64}
    manifest.loc[1, column] = others.get(column, "other")
    manifest.to_parquet(out / "manifest.parquet", index=False)
    with pytest.raises(DataError, match="corrupt or edited"):
        load_dataset(out)


def test_the_fingerprint_ignores_only_storage(raw: Raw, out: Path) -> None:
    dataset = small(raw, out)
    table = dataset.manifest
    moved = table.assign(shard="elsewhere.tar", offset=table["offset"] + 512, source="other/" + table["source"])
    assert fingerprint(moved[::-1], 24) == dataset.fingerprint
    assert fingerprint(table, 25) != dataset.fingerprint
    assert fingerprint(table[1:], 24) != dataset.fingerprint
    assert fingerprint(table.assign(mask_crc32=-1), 24) != dataset.fingerprint
    assert fingerprint(table.assign(crc32=table["crc32"] + 1), 24) != dataset.fingerprint


def test_a_folder_that_is_not_a_data_set_is_refused_with_the_cause(raw: Raw, out: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder.*data prepare.*--data demo"):
        load_dataset(out)
    out.mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        load_dataset(out)
    raw.image_2017(1)
    with pytest.raises(DataError, match="raw files, which must be prepared first"):
        load_dataset(raw.folder)
    (out / "holiday.jpg").touch()
    with pytest.raises(DataError, match="not a prepared data set"):
        load_dataset(out)
    with pytest.raises(DataError, match="is a file"):
        load_dataset(out / "holiday.jpg")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", b"{", "cannot be read"),
        ("dataset.json", b'{"format": 99}', "has format 99"),
        ("dataset.json", b'{"format": 2}', "the fields fingerprint, notes, size, synthetic, tables, years are missing"),
        ("manifest.parquet", b"PAR1", "cannot be read"),
        ("manifest.parquet", None, "is missing although"),
        ("shard-00000.tar", None, "this shard and it is missing"),
        ("shard-00000.tar", b"short", "cut short"),
    ],
)
def test_a_corrupt_file_is_named(raw: Raw, out: Path, name: str, content: bytes | None, message: str) -> None:
    small(raw, out)
    (out / name).unlink()
    if content is not None:
        (out / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(out)


def test_real_years_are_prepared(isic: Path, tmp_path: Path, out: Path) -> None:
    raw = tmp_path / "excerpt"
    for table in isic.rglob("*.csv"):
        if table.is_relative_to(isic / "2017"):
            target = raw / table.relative_to(isic)
            target.parent.mkdir(parents=True, exist_ok=True)
            lines = table.read_text().splitlines(keepends=True)
            target.write_text("".join(lines[:1] + sorted(lines[1:])[:20]))
    for name in ("ISIC-2017_Training_Data", "ISIC-2017_Validation_Data"):
        for image in sorted((isic / "2017" / name).glob("*.jpg"))[:20]:
            (raw / "2017" / name / image.name).symlink_to(image)
    dataset = prepare(Request(raw, ("2017",)), out)
    assert dataset.manifest["listed"].value_counts().to_dict() == {"2017-train": 20, "2017-validation": 20}
    reader = ShardReader(dataset)
    for row in range(0, 40, 7):
        image = Image.open(io.BytesIO(reader.jpeg(row).tobytes()))
        original = Image.open(raw / dataset.manifest["source"][row]).convert("RGB")
        assert image.size == original.size
        assert np.abs(np.asarray(image).astype(int) - np.asarray(original)).mean() < 4
