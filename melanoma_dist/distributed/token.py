"""The tokens that guard Ray clusters."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.errors import ConfigError

_OTHERS = 0o077  # what group and others may do
_REMEDY = "Name a file of your own with RAY_AUTH_TOKEN_PATH."


def make_own_token() -> None:
    """Create a token for the private cluster that this process starts next.

    The token is in the environment of the cluster's processes, which no other user can read, and in no file. A token
    that is already in the environment is used.
    """
    os.environ.pop("RAY_AUTH_MODE", None)  # "disabled" would open it; without one, Ray demands a token
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def check_token_files() -> None:
    """Make sure that no other user can read the token of a cluster to join.

    Ray's own file in the home folder is closed if an older Ray left it open. A file named by the user is only checked.
    Raises ConfigError if it is open.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        _refuse_open(Path(path))
        return
    token = Path.home() / ".ray" / "auth_token"
    if token.exists():
        _close(token.parent, 0o700)
        _close(token, 0o600)


def _refuse_open(token: Path) -> None:
    """Check a file of this user only, as ssh does: a secret mounted into a container by root is root's business."""
    if not token.exists():  # Ray has a message for it
        return
    status = token.stat()
    if status.st_uid == os.geteuid() and status.st_mode & _OTHERS:
        raise ConfigError(
            f"RAY_AUTH_TOKEN_PATH {token}: other users can open the file (mode {status.st_mode & 0o777:04o}), and its "
            f"token lets them run code on the cluster. Close it: chmod 600 {token}"
        )


def _close(place: Path, mode: int) -> None:
    status = place.stat()
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{place}: belongs to another user, who may know the token. {_REMEDY}")
    if not status.st_mode & _OTHERS:
        return
    before = f"{status.st_mode & 0o777:04o}"
    try:
        place.chmod(mode)
    except OSError as error:
        rule = f"other users can open it (mode {before}), and chmod fails ({error.strerror})"
        raise ConfigError(f"{place}: {rule}. {_REMEDY}") from error
    console.info(
        f"{place}: was open to other users (mode {before}), and is closed now ({mode:04o}). "
        "Give the cluster a new token if one of them may have read it."
    )
