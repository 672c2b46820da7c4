"""Locks of a file that machines share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import LOCK, lock_file

REFUSAL = DataError("another process is at work")
HOLDER = """
import sys
from pathlib import Path
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import lock_file
with lock_file(Path(sys.argv[1]), DataError("held")):
    print("held", flush=True)
    input()
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    file = tmp_path / LOCK
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another process"), lock_file(file, REFUSAL):
            pass
        holder.kill()
    with lock_file(file, REFUSAL):
        assert file.stat().st_size == 0


def test_a_symlink_in_place_of_the_lock_file_is_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(outside)
    with lock_file(folder / LOCK, REFUSAL):
        assert not outside.exists()


def test_the_folder_is_locked_where_no_lock_file_can_be_created(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with (
        lock_file(tmp_path / LOCK, REFUSAL),
        pytest.raises(DataError, match="another process"),
        lock_file(tmp_path / LOCK, REFUSAL),
    ):
        pass
