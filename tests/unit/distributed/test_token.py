"""A private cluster has a token in no file; the files of other clusters' tokens are closed to other users."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from melanoma_dist.distributed.token import check_token_files, make_own_token
from melanoma_dist.errors import ConfigError

SECRET = "5e" * 32


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def token(home: Path) -> Path:
    """Ray's own file, as Ray creates it under the usual umask."""
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.parent.chmod(0o755)
    path.write_text(SECRET)
    path.chmod(0o644)
    return path


def mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o777:04o}"


def test_the_token_of_a_private_cluster_is_in_no_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    make_own_token()
    own = os.environ["RAY_AUTH_TOKEN"]
    assert len(bytes.fromhex(own)) == 32
    assert "RAY_AUTH_MODE" not in os.environ
    assert list(home.iterdir()) == []
    make_own_token()
    assert os.environ["RAY_AUTH_TOKEN"] == own


def test_rays_token_file_is_closed_and_the_token_not_printed(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_token_files()
    assert (mode(token), mode(token.parent), token.read_text()) == ("0600", "0700", SECRET)
    output = " ".join(capsys.readouterr().out.split())
    assert "auth_token: was open to other users (mode 0644), and is closed now (0600)" in output
    assert "was open to other users (mode 0755), and is closed now (0700)" in output
    assert SECRET not in output
    check_token_files()
    assert capsys.readouterr().out == ""


def test_the_target_of_a_link_is_closed(token: Path, home: Path) -> None:
    token.rename(home / "kept")
    token.symlink_to(home / "kept")
    check_token_files()
    assert mode(home / "kept") == "0600"


@pytest.mark.parametrize("what", ["auth_token", ".ray"])
def test_a_token_file_of_another_user_is_refused(what: str, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = token if what == "auth_token" else token.parent
    try:
        os.chown(stranger, 65534, -1)
    except PermissionError:
        pytest.skip("only root gives files away")
    with pytest.raises(ConfigError, match=rf"{what}: belongs to another user, who may know the token\. Name a file"):
        check_token_files()


def test_a_missing_token_is_left_to_ray(home: Path) -> None:
    check_token_files()
    assert list(home.iterdir()) == []


def test_a_named_file_must_be_closed_already(token: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = home / "named"
    named.write_text(SECRET)
    named.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    with pytest.raises(ConfigError, match=rf"mode 0640.* chmod 600 {named}") as refused:
        check_token_files()
    assert SECRET not in str(refused.value)
    named.chmod(0o600)
    check_token_files()
    assert mode(token) == "0644"  # not the one that is used


def test_a_file_mounted_by_root_is_not_checked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = home / "mounted"
    named.write_text(SECRET)
    named.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    monkeypatch.setattr(os, "geteuid", lambda: named.stat().st_uid + 1)
    check_token_files()


def test_a_token_in_the_environment_is_in_no_file(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    check_token_files()
    assert mode(token) == "0644"
