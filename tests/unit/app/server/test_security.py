"""Who may speak to the server, and what its answers allow a browser to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from melanoma_dist.app.server.command import choose_token
from melanoma_dist.app.server.security import host_names
from melanoma_dist.config.serve import TOKEN_VARIABLE, ServeConfig, check_files
from melanoma_dist.errors import ConfigError

from .conftest import TOKEN, form, lesion

CLOSED = ("/v1/model", "/v1/examples", "/v1/examples/x", "/v1/cases/x", "/metrics", "/nothing")
OPEN = ("/", "/page/page.js", "/page/style.css", "/docs", "/openapi.json", "/v1/health")
RUN = Path("run")
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what a user may type; nothing listens there


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "header", ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer Tokén-with-ümlauts"]
)
def test_nothing_of_the_run_without_the_token(guarded: TestClient, path: str, header: str) -> None:
    response = guarded.get(path, headers={"Authorization": header.encode()} if header else {})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_an_upload_without_the_token_is_not_read(guarded: TestClient) -> None:
    assert guarded.post("/v1/predict", files=form(lesion(0))).status_code == 401
    with_token = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.post("/v1/predict", files=form(lesion(0)), headers=with_token).status_code == 200


@pytest.mark.parametrize("path", OPEN)
def test_the_page_itself_is_open(guarded: TestClient, path: str) -> None:
    response = guarded.get(path)
    assert response.status_code == 200
    assert TOKEN not in response.text


def test_a_token_in_the_address_or_a_cookie_counts_for_nothing(guarded: TestClient) -> None:
    assert guarded.get(f"/v1/model?token={TOKEN}").status_code == 401
    guarded.cookies.set("token", TOKEN)
    assert guarded.get("/v1/model").status_code == 401


@pytest.mark.parametrize("path", [*OPEN, *CLOSED])
def test_no_answer_sets_a_cookie_or_lets_other_sites_read_it(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"Origin": "http://127.0.0.1:8000"}).headers
    assert "set-cookie" not in headers
    assert not [name for name in headers if name.startswith("access-control")]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "[::2]:8000"])
def test_another_name_for_this_machine_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8000", "LOCALHOST", "127.0.0.1", "[::1]:8000"])
def test_the_names_of_loopback_are_accepted(client: TestClient, host: str) -> None:
    assert client.get("/v1/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://localhost:8000"])
def test_a_page_of_another_origin_is_refused(client: TestClient, origin: str) -> None:
    response = client.post("/v1/predict", files=form(lesion(0)), headers={"Origin": origin})
    assert response.status_code == 403


def test_beyond_loopback_there_is_always_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert choose_token(ServeConfig(RUN)).token is None
    assert choose_token(ServeConfig(RUN, host="::1")).token is None
    open_hosts = [choose_token(ServeConfig(RUN, host=host)) for host in (EVERYWHERE, "::", "192.0.2.1", "somewhere")]
    assert all(access.is_new and len(access.token or "") >= 32 for access in open_hosts)
    assert len({access.token for access in open_hosts}) == 4
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert choose_token(ServeConfig(RUN, host=EVERYWHERE)).token == TOKEN
    assert choose_token(ServeConfig(RUN)).token == TOKEN


@pytest.mark.parametrize("token", ["", "short", "with space in it....", "line\nbreak-in-a-token", "x" * 600])
def test_a_weak_or_odd_token_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    for settings in (ServeConfig(RUN, token_file=tmp_path / "token"), ServeConfig(RUN)):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        with pytest.raises(ConfigError, match="openssl"):
            check_files(settings)


def test_files_that_do_not_exist_are_named() -> None:
    with pytest.raises(ConfigError, match="--token-file nowhere: there is no such file"):
        check_files(ServeConfig(RUN, token_file=Path("nowhere")))


def test_an_open_server_answers_to_this_machines_addresses_and_to_names_of_the_user() -> None:
    names = host_names(ServeConfig(RUN, host=EVERYWHERE, allow_hosts=("Proxy.Example",)))
    assert {"127.0.0.1", "localhost", "proxy.example", EVERYWHERE} <= names  # the command prints 0.0.0.0 to be opened
    assert len(names) >= 5
    assert "evil.example" not in names
