"""The folder of a private cluster is removed with its command, or by the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from melanoma_dist.distributed.folder import own_folder
from melanoma_dist.errors import ConfigError, TrainingError

HOLD = """
from melanoma_dist.distributed.folder import own_folder
with own_folder() as folder:
    (folder / "log").write_text("of Ray")
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files with a short path, for Ray's sockets."""
    monkeypatch.setattr("melanoma_dist.distributed.folder.temporary_base", lambda: str(tmp_path))
    return tmp_path


def hold(base: Path) -> tuple[subprocess.Popen[str], Path]:
    """A command that has a folder in ``base``."""
    script = f"import melanoma_dist.distributed.folder as place\nplace.temporary_base = lambda: {str(base)!r}\n{HOLD}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script], text=True, **pipes)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_the_user_can_enter_it_and_it_is_removed_at_the_end(temporary: Path) -> None:
    with own_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_it_stays_after_a_failure_until_the_next_command_but_not_after_a_mistake_of_the_user(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError), own_folder():
        raise ConfigError("gpus")
    assert list(temporary.iterdir()) == []
    with pytest.raises(TrainingError), own_folder() as folder:
        raise TrainingError("a fold died")
    assert folder.name in capsys.readouterr().out.replace("\n", "")
    assert folder.is_dir(), "its logs are for a person to read"
    with own_folder() as following:
        assert list(temporary.iterdir()) == [following]


def test_the_next_command_removes_the_folder_of_a_killed_one_and_of_no_other(temporary: Path) -> None:
    killed, left = hold(temporary)
    living, held = hold(temporary)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert (left / "log").exists()
        with own_folder():
            assert not left.exists()
            assert (held / "log").exists()
    finally:
        living.communicate("end\n")
    assert living.returncode == 0
    assert list(temporary.iterdir()) == []


def test_a_folder_that_may_be_in_use_stays(temporary: Path) -> None:
    elsewhere = temporary / "ray-elsewhere"  # of a machine whose locks are not seen here
    elsewhere.mkdir()
    (elsewhere / ".melanoma-dist").write_text("another-machine")
    (temporary / "ray-of-ray").mkdir()
    (temporary / "ray-file").write_text("")
    (temporary / "ray-link").symlink_to(elsewhere)
    before = sorted(temporary.iterdir())
    with own_folder():
        pass
    assert sorted(temporary.iterdir()) == before
