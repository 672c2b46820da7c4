"""The notes that a download leaves for the command that resumes it, fuzzed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from melanoma_dist.data.download.catalogue import official_files
from melanoma_dist.data.download.licences import require_acceptance
from melanoma_dist.data.download.local_files import read_records
from melanoma_dist.data.download.partial_file import FileVersion, PartialFile
from melanoma_dist.errors import DataError

from ...hostile import fuzz_reader


def test_fuzzed_licences_are_read_or_refused(tmp_path: Path) -> None:
    files = official_files((2019,))
    require_acceptance(tmp_path, files, accept=True)
    (path,) = tmp_path.iterdir()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        require_acceptance(tmp_path, files, accept=True)

    fuzz_reader(read, path.read_bytes(), DataError)


def test_a_fuzzed_record_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "2019" / "download.json"
    path.parent.mkdir()
    size = {"files": 3, "bytes": 9}
    entry = {"url": "x", "bytes": 7, "sha256": "0" * 64, "when": "x", "licence": "x", "unpacked": size}

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_records(tmp_path, 2019)

    fuzz_reader(read, json.dumps({"files": {"a.zip": entry}}).encode(), DataError)


def test_a_fuzzed_note_is_resumed_or_restarted(tmp_path: Path) -> None:
    url = "https://example.org/a.zip"
    (tmp_path / "a.zip.part").write_bytes(b"PK")

    def read(data: bytes) -> None:
        (tmp_path / "a.zip.part.json").write_bytes(data)
        part = PartialFile(tmp_path / "a.zip")
        if part.is_from(url) and part.version is not None:
            part.version.matches({"ETag": "x"}), part.version.condition, part.is_complete

    fuzz_reader(read, json.dumps(asdict(FileVersion(url, '"tag"', None, 9))).encode())
