from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import melanoma_dist
from melanoma_dist.artifacts.run_record import (
    RunRecord,
    current_environment,
    now,
    parse_run_record,
    read_run_record,
    write_run_record,
)
from melanoma_dist.errors import DataError

from ..hostile import fuzz_reader


@pytest.fixture
def record() -> RunRecord:
    environment = current_environment()
    return RunRecord(
        {"seed": 0, "optimizer.lr": 1e-4, "balance": False, "data": "x"}, environment, now(), (environment,)
    )


def test_a_record_is_read_as_it_was_written(record: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_run_record(path, record)
    assert read_run_record(path) == record
    assert parse_run_record(Path("mirror/record.json"), path.read_bytes()) == record


def test_a_record_of_an_earlier_version_is_read(record: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_run_record(path, record)
    tree = json.loads(path.read_text())
    earlier = {"identity": tree["identity"], "made_with": tree["environment"], "begun": tree["started"]}
    path.write_text(json.dumps({**earlier, "gone_on_with": tree["resumed_with"]}))
    assert read_run_record(path) == record


def test_the_fingerprint_is_of_every_module_of_the_package() -> None:
    """A change in any room is another code."""
    digest = hashlib.sha256()
    for path in sorted(Path(melanoma_dist.__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    assert current_environment().code == digest.hexdigest()


def test_a_corrupt_record_is_read_or_refused(record: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "record.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_run_record(path)

    write_run_record(path, record)
    fuzz_reader(read, path.read_bytes(), DataError)
