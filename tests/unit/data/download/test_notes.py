"""What a download left for the command that goes on, read whatever became of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from melanoma_dist.data.download.catalogue import catalogue
from melanoma_dist.data.download.licences import require_acceptance
from melanoma_dist.data.download.local_files import read_record
from melanoma_dist.data.download.partial_file import PartialFile, Version
from melanoma_dist.errors import DataError

from ...hostile import fuzz_reader


def test_accepted_licences(tmp_path: Path) -> None:
    items = catalogue((2019,))
    require_acceptance(tmp_path, items, accept=True)
    (path,) = tmp_path.iterdir()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        require_acceptance(tmp_path, items, accept=True)

    fuzz_reader(read, path.read_bytes(), DataError)


def test_what_was_downloaded(tmp_path: Path) -> None:
    path = tmp_path / "2019" / "download.json"
    path.parent.mkdir()
    unpacked = {"files": 3, "bytes": 9}
    entry = {"url": "x", "bytes": 7, "sha256": "0" * 64, "when": "x", "licence": "x", "unpacked": unpacked}

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_record(tmp_path, 2019)

    fuzz_reader(read, json.dumps({"files": {"a.zip": entry}}).encode(), DataError)


def test_what_was_begun_is_gone_on_with_or_begun_anew(tmp_path: Path) -> None:
    url = "https://example.org/a.zip"
    (tmp_path / "a.zip.part").write_bytes(b"PK")

    def read(data: bytes) -> None:
        (tmp_path / "a.zip.part.json").write_bytes(data)
        part = PartialFile(tmp_path / "a.zip")
        if part.belongs_to(url) and part.version is not None:
            part.version.agrees({"ETag": "x"}), part.version.condition, part.complete

    fuzz_reader(read, json.dumps(asdict(Version(url, '"tag"', None, 9))).encode())
