"""The tokens without which nobody runs anything on a Ray cluster."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.errors import ConfigError

_OTHERS = 0o077  # what group and others may do
_REMEDY = "Name a file of your own with RAY_AUTH_TOKEN_PATH."


def make_own_token() -> None:
    """Guard the private cluster that this process is about to start by a token that is made for it alone.

    It lies in the environment of the cluster's processes, which no other user can read, and in no file. A token that
    the environment has already is taken.
    """
    os.environ.pop("RAY_AUTH_MODE", None)  # "disabled" would open it; without one, Ray demands a token
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def check_token_files() -> None:
    """See that the token for a cluster to join cannot be read by other users.

    Ray's own file in the home folder is closed where it is open: an older Ray made it so. A file that the user names
    is the user's to close, or its owner's. Raises ConfigError for one that is open.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named:
        _refuse_open(Path(named))
        return
    token = Path.home() / ".ray" / "auth_token"
    if token.exists():
        _close(token.parent, 0o700)
        _close(token, 0o600)


def _refuse_open(token: Path) -> None:
    """Like ssh, only for a file of one's own: one that root mounts for a container is root's affair."""
    if not token.exists():  # Ray says so
        return
    found = token.stat()
    if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
        raise ConfigError(
            f"RAY_AUTH_TOKEN_PATH {token}: other users may open the file (mode {found.st_mode & 0o777:04o}), and the "
            f"token in it lets them run code on the cluster. Close it: chmod 600 {token}"
        )


def _close(place: Path, mode: int) -> None:
    found = place.stat()
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{place}: belongs to another user, who may know the token. {_REMEDY}")
    if not found.st_mode & _OTHERS:
        return
    was = f"{found.st_mode & 0o777:04o}"
    try:
        place.chmod(mode)
    except OSError as error:
        rule = f"other users may open it (mode {was}), and it cannot be closed ({error.strerror})"
        raise ConfigError(f"{place}: {rule}. {_REMEDY}") from error
    console.info(
        f"{place}: was open to other users (mode {was}), and is closed now ({mode:04o}). "
        "Give the cluster a new token if one of them may have read it."
    )
