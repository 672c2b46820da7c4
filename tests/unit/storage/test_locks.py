"""One process at a time at a file that machines share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import LOCK, alone_by

REFUSAL = DataError("another one is at work")
HOLDER = """
import sys
from pathlib import Path
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import alone_by
with alone_by(Path(sys.argv[1]), DataError("held")):
    print("held", flush=True)
    input()
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    file = tmp_path / LOCK
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another one"), alone_by(file, REFUSAL):
            pass
        holder.kill()
    with alone_by(file, REFUSAL):
        assert file.stat().st_size == 0


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(outside)
    with alone_by(folder / LOCK, REFUSAL):
        assert not outside.exists()


def test_where_no_file_can_be_written_the_folder_is_held(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with (
        alone_by(tmp_path / LOCK, REFUSAL),
        pytest.raises(DataError, match="another one"),
        alone_by(tmp_path / LOCK, REFUSAL),
    ):
        pass
