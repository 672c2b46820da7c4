"""A data set that was edited or written by another tool gives one message with file and column."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.config.data import AuditConfig
from melanoma_dist.data.audit.inspection import inspect
from melanoma_dist.data.manifest import COLUMNS, OPTIONAL, Dataset, load_dataset, read_side_table
from melanoma_dist.data.prepare import Request as Preparation
from melanoma_dist.data.prepare import prepare
from melanoma_dist.data.schema import AGAIN, MANIFEST_RULES, OPTIONAL_RULES
from melanoma_dist.errors import DataError

from ..hostile import fuzz_reader
from .conftest import Raw, rewrite, small


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset.folder, tmp_path / "copy"))


def as_text(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype("str")


def first(value: object) -> Callable[[pd.Series[Any]], pd.Series[Any]]:
    """Another value in the first row, and the others as they were."""
    return lambda values: pd.Series([value, *values[1:]], dtype=values.dtype if value == value else None)


def test_every_column_has_a_rule() -> None:
    assert set(MANIFEST_RULES) == set(COLUMNS)
    assert set(OPTIONAL_RULES) == set(OPTIONAL)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        *((name, first(None)) for name in ("image_id", "group", "years", "listed", "split", "source_sha256", "shard")),
        *((name, as_text) for name in ("age", "MEL", "width", "crc32", "offset", "mask_length")),
        ("sex", lambda values: pd.Series(np.arange(len(values)))),
        ("offset", first(-512)),
        ("offset", first(2**62)),
        ("length", first(0)),
        ("length", first(-7)),
        ("width", first(0)),
        ("crc32", first(-1)),
        ("crc32", lambda values: values.astype("float64")),
        ("mask_offset", first(-2)),
        ("MEL", lambda values: values == 1),
        ("shard", first("/etc/passwd")),
        ("shard", first("../elsewhere/shard-00000.tar")),
        ("shard", first("shard-00000.tar\n")),
        ("shard", first("shard-٠٠٠٠٠.tar")),
    ],
)
def test_a_column_of_the_manifest_that_breaks_its_rule_is_named(
    column: str, change: Callable[[pd.Series[Any]], pd.Series[Any]], copy: Path
) -> None:
    table = pd.read_parquet(copy / "manifest.parquet")
    table[column] = change(table[column])
    table.to_parquet(copy / "manifest.parquet", index=False)
    with pytest.raises(DataError, match=rf"manifest\.parquet: {column} must be .*Delete the data set's folder"):
        load_dataset(copy)


def test_an_incomplete_place_of_a_mask_is_refused(copy: Path) -> None:
    table = pd.read_parquet(copy / "manifest.parquet")
    table.loc[0, "mask_offset"] = 512
    table.to_parquet(copy / "manifest.parquet", index=False)
    with pytest.raises(DataError, match="some masks have only some of offset, length and CRC-32"):
        load_dataset(copy)


def test_a_manifest_without_metadata_is_valid(raw: Raw, out: Path) -> None:
    """2018 alone has no age, sex and site: whole columns are blank."""
    for number in range(3):
        raw.image_2018(number)
    manifest = prepare(Preparation(raw.folder, ("2018",)), out).manifest
    assert manifest[["age", "sex", "site"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", "512"), ("size", 24.5), ("size", True), ("size", 0), ("size", None), ("synthetic", "no"),
        ("fingerprint", 7), ("notes", "none"), ("notes", [1]), ("years", None), ("years", [2017.5]), ("tables", {}),
        ("tables", []),
    ],
)  # fmt: skip
def test_a_field_of_the_description_that_breaks_its_rule_is_named(field: str, value: object, copy: Path) -> None:
    description = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(description | {field: value}))
    with pytest.raises(DataError, match=rf"dataset\.json: {field} .*must be") as caught:
        load_dataset(copy)
    assert str(caught.value).endswith(AGAIN)


@pytest.mark.parametrize("field", ["notes", "tables", "size", "years"])
def test_a_field_that_is_missing_is_named(field: str, copy: Path) -> None:
    description = json.loads((copy / "dataset.json").read_text())
    del description[field]
    (copy / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(
        DataError,
        match=rf"dataset\.json: the fields {field} are missing: an earlier version.*Delete the data set's folder",
    ):
        inspect(AuditConfig(str(copy), "isic2019", folds=3))


@pytest.mark.parametrize("name", ["joins.parquet", "missing.parquet", "quarantine.parquet"])
def test_an_edited_table_beside_the_manifest_is_refused(name: str, copy: Path) -> None:
    dataset = load_dataset(copy)
    table = read_side_table(dataset, name)
    table[:0].to_parquet(copy / name, index=False, compression="gzip")
    with pytest.raises(DataError, match=rf"{name}: is not the table that .*corrupt or edited"):
        read_side_table(dataset, name)
    for column in table:
        rewrite(copy, name, table.drop(columns=column))
        with pytest.raises(DataError, match=rf"{name}: the columns {column} are missing. Delete the data set's folder"):
            read_side_table(dataset, name)
    (copy / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: cannot be read .*Delete the data set's folder"):
        read_side_table(dataset, name)


@pytest.mark.parametrize("value", ["yes", None, 1])
def test_joined_is_true_or_false(value: object, copy: Path) -> None:
    dataset = load_dataset(copy)
    joins = read_side_table(dataset, "joins.parquet")
    rewrite(copy, "joins.parquet", joins.assign(joined=value))
    with pytest.raises(DataError, match=r"joins\.parquet: joined must be true or false"):
        read_side_table(dataset, "joins.parquet")


def test_the_remedy_for_a_corrupt_data_set_works(raw: Raw, out: Path) -> None:
    """Run again, the preparation names the corrupt file; after the folder is deleted it succeeds."""
    small(raw, out)
    request = Preparation(raw.folder, ("2017",), size=24)
    (out / "joins.parquet").unlink()
    with pytest.raises(
        DataError, match=r"joins\.parquet: cannot be read.*Delete the data set's folder and prepare it again"
    ):
        prepare(request, out)
    shutil.rmtree(out)
    assert len(prepare(request, out).manifest) == 4


def test_a_corrupt_description_is_read_or_refused(copy: Path) -> None:
    def read(data: bytes) -> None:
        (copy / "dataset.json").write_bytes(data)
        load_dataset(copy)

    fuzz_reader(read, (copy / "dataset.json").read_bytes(), DataError)
