from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from melanoma_dist.artifacts.records import read_record, require_keys, write_record
from melanoma_dist.errors import DataError


@dataclass(frozen=True)
class Inner:
    low: float


@dataclass(frozen=True)
class Record:
    name: str
    parts: tuple[Inner, ...]
    by_fold: dict[int, float]
    schema: int = 2


RECORD = Record("a", (Inner(0.5), Inner(1.0)), {0: 0.25, 10: 0.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_record(tmp_path / "record.json", RECORD)
    return tmp_path / "record.json"


def read(path: Path) -> Record:
    return read_record(path, Record, "Delete it.", (2,))


def test_a_record_is_read_as_it_was_written(path: Path) -> None:
    assert read(path) == RECORD


def test_a_record_is_written_whole_or_not_at_all(path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(path, Record("b", (Inner(math.nan),), {}))
    assert read(path) == RECORD
    assert [each.name for each in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": 3}, "name is 3, must be a valid string"),
        ({"name": None}, "name is null, must be a valid string"),
        ({"parts": [{"low": "x"}]}, 'parts.0.low is "x", must be a valid number'),
        ({"parts": [{}]}, "has no parts.0.low"),
        ({"parts": 7}, "parts is 7, must be a valid array"),
        ({"by_fold": {"first": 1.0}}, "by_fold.first"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named_with_its_value_and_the_remedy(
    changed: dict[str, object], message: str, path: Path
) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(DataError) as refusal:
        read(path)
    assert message in str(refusal.value)
    assert str(refusal.value).startswith(str(path))
    assert str(refusal.value).endswith("Delete it.")


@pytest.mark.parametrize(("schema", "text"), [(1, "1"), (None, "null")])
def test_a_file_of_another_version_is_named_as_that(schema: int | None, text: str, path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema}))
    with pytest.raises(DataError, match=rf"has schema {text}, must be 2: another version .*another --name\.$"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"name": NaN}'])
def test_a_file_that_is_no_record_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"record\.json: .* Delete it\."):
        read(path)
    path.unlink()
    with pytest.raises(DataError, match=r"record\.json: cannot be read \(.*No such file.* Delete it\."):
        read(path)


def test_mappings_must_have_the_same_keys() -> None:
    require_keys(Path("x"), "Delete it.", ("MEL", "NV"), folds={"NV": 1, "MEL": 2})
    with pytest.raises(DataError, match=r"x: folds is about MEL, must be about MEL, NV\. Delete it\."):
        require_keys(Path("x"), "Delete it.", ("MEL", "NV"), labels={"NV": 1, "MEL": 2}, folds={"MEL": 1})
