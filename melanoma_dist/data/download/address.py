"""The address that files are fetched from, without what must not be written down.

A user name and a password are split off once, here: they go into requests and nowhere else. What is printed, recorded
or compared is the address without them.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from melanoma_dist.errors import ConfigError


class Address(NamedTuple):
    """Where files are fetched from, and as whom."""

    url: str
    """Without user name, password and slashes at the end."""
    auth: tuple[bytes, bytes] | None
    """User name and password, for requests."""


def split_address(base_url: str) -> Address:
    """``base_url`` as it may be shown, and its credentials. Raises ConfigError, which does not tell them."""
    # Up to the last @, wherever a parser would see it: a password with / or # in it must not be told either.
    shown = re.sub(r"^(\w+://)?.*@", r"\1", base_url, flags=re.DOTALL)
    try:
        parts = urlsplit(base_url)
        host, user, password, _ = parts.hostname, parts.username, parts.password, parts.port
    except ValueError:
        # Not told, and not chained: it quotes a password that was taken for a port.
        raise ConfigError.of("base_url", shown, "is no address, or its port is no number of 0 to 65535") from None
    if parts.scheme not in ("http", "https"):
        raise ConfigError.of("base_url", shown, "must begin with http:// or https://")
    if not host:
        raise ConfigError.of("base_url", shown, "names no host")
    if re.search(r"[?#\s]", base_url):
        rule = "must have no ?, # or space in it: /<year>/<file name> is put at its end"
        raise ConfigError.of("base_url", shown, rule, "In a password, write them as %3F, %23, %20.")
    if user is None:
        return Address(base_url.rstrip("/"), None)
    clean = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Address(clean.rstrip("/"), (unquote(user).encode(), unquote(password or "").encode()))
