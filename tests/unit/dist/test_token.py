"""The token of private clusters is made for its owner's eyes."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.dist.cluster import _make_token


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


def test_a_new_token_is_for_its_owner_only(home: Path) -> None:
    _make_token()
    (token,) = (home / ".ray").iterdir()
    assert token.name == "auth_token"
    assert len(bytes.fromhex(token.read_text())) == 32
    assert [oct(path.stat().st_mode & 0o777) for path in (token, token.parent)] == ["0o600", "0o700"]


def test_a_token_that_is_there_stays(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("mine")
    _make_token()
    assert (home / ".ray" / "auth_token").read_text() == "mine"


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_is_named_is_enough(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "elsewhere")
    _make_token()
    assert list(home.iterdir()) == []


def test_a_home_that_cannot_be_written_is_left_to_ray(home: Path) -> None:
    (home / ".ray").write_text("a file")
    _make_token()
