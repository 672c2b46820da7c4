"""``--base-url``: a bad address is refused at once, and only the server sees its password."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from melanoma_dist.cli import main
from melanoma_dist.config.address import split_address
from melanoma_dist.errors import ConfigError, DownloadError

from .server import Site
from .site import IMAGES, get

SECRET = "s€cret@/1"  # noqa: S105  # made up


@pytest.mark.parametrize(
    ("base_url", "url", "auth"),
    [
        ("https://host/a/", "https://host/a", None),
        ("http://host:80/a@b", "http://host:80/a@b", None),
        ("http://user:pass@host:8080/a", "http://host:8080/a", (b"user", b"pass")),
        ("http://user@[::1]/a", "http://[::1]/a", (b"user", b"")),
        ("http://us%40er:s%e2%82%accret%2F@host", "http://host", (b"us@er", "s€cret/".encode())),
    ],
)
def test_credentials_are_split_off(base_url: str, url: str, auth: tuple[bytes, bytes] | None) -> None:
    assert split_address(base_url) == (url, auth)


@pytest.mark.parametrize(
    ("base_url", "rule"),
    [
        ("ftp://user:secret@host", "must begin with http"),
        ("user:secret@host", "must begin with http"),
        ("http:///challenges", "names no host"),
        ("http://user:secret@/challenges", "names no host"),
        ("http://host/?token=1", "must have no \\?"),
        ("http://host/#top", "must have no"),
        ("http://ho st/", "must have no"),
        ("http://host:port/", "port is not a number"),
        ("http://host:99999/", "port is not a number"),
        ("http://user:sec/ret@host/", "port is not a number"),
        ("http://user:sec#ret@host/", "port is not a number"),
        ("http://[::1/", "is not a valid address"),
    ],
)
def test_a_bad_address_is_refused_when_the_flag_is_parsed(
    base_url: str, rule: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=rf"--base-url .*{rule}") as caught:
        split_address(base_url)
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert main(["data", "download", "--raw", "nowhere", "--years", "2017", "--base-url", base_url]) == 2
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    assert "sec" not in captured.out + captured.err


def test_only_the_server_sees_a_password(site: Site, raw: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain_url = site.url
    site.auth = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
    site.url = plain_url.replace("//", "//user:s%E2%82%ACcret%40%2F1@")
    site.fail(IMAGES, "truncate", "503", "503", "503")
    with pytest.raises(DownloadError) as caught:
        get(site, raw)
    written = [path.read_text() for path in raw.rglob("*.json")]
    get(site, raw, list=True)
    get(site, raw)
    captured = capfd.readouterr()
    texts = [str(caught.value), captured.out, captured.err, *written, *(p.read_text() for p in raw.rglob("*.json"))]
    assert not [text for text in texts if "cret" in text or "user:" in text]
    assert sum(plain_url in text for text in texts) >= 3
    site.url = plain_url
    with pytest.raises(DownloadError, match="401"):
        get(site, raw, 2018, accept_license=True)
