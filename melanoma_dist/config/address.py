"""The address of a download server, separated from its credentials.

Credentials are split off once, here, and go only into requests. Messages, records and comparisons use the address
without them.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from melanoma_dist.errors import ConfigError


class Address(NamedTuple):
    """A server, and the credentials for it."""

    url: str
    """Without user name, password and slashes at the end."""
    auth: tuple[bytes, bytes] | None
    """User name and password, for requests."""


def split_address(base_url: str) -> Address:
    """Split ``base_url`` into a printable address and credentials. Raises ConfigError without printing credentials."""
    # Cut at the last @, not where a parser cuts: a password may contain / or #.
    printable = re.sub(r"^(\w+://)?.*@", r"\1", base_url, flags=re.DOTALL)
    try:
        parts = urlsplit(base_url)
        host, user, password, _ = parts.hostname, parts.username, parts.password, parts.port
    except ValueError:
        # Not chained: the original error quotes a password that was parsed as a port.
        raise ConfigError.of(
            "base_url", printable, "is not a valid address, or its port is not a number from 0 to 65535"
        ) from None
    if parts.scheme not in ("http", "https"):
        raise ConfigError.of("base_url", printable, "must begin with http:// or https://")
    if not host:
        raise ConfigError.of("base_url", printable, "names no host")
    if re.search(r"[?#\s]", base_url):
        rule = "must have no ?, # or space: /<year>/<file name> is appended"
        raise ConfigError.of("base_url", printable, rule, "In a password, write them as %3F, %23, %20.")
    if user is None:
        return Address(base_url.rstrip("/"), None)
    clean = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Address(clean.rstrip("/"), (unquote(user).encode(), unquote(password or "").encode()))
