from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest

from melanoma_dist.data.download.partial_file import PartialFile, Version
from melanoma_dist.data.download.transfer import (
    Patience,
    RetriesExhausted,
    Stop,
    Stopped,
    Transfer,
    Unreachable,
    _retry_after,
)
from melanoma_dist.errors import DownloadError

from .server import Site, serving

FILE = "/2019/file.zip"
BODY = np.random.default_rng(0).bytes(300_000)
HASTY = Patience(connect_s=2, read_s=0.3, attempts=3, first_wait_s=0.01)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(files={FILE: BODY})) as site:
        yield site


@pytest.fixture
def fetch(site: Site, tmp_path: Path) -> Callable[..., PartialFile]:
    """Fetch the file as a new command would; the bytes that are told must add up."""

    def run(path: str = FILE, stop: Stop | None = None, patience: Patience = HASTY) -> PartialFile:
        part = PartialFile(tmp_path / "raw" / "file.zip")
        told = [part.size]
        lines: list[str] = []
        try:
            Transfer("file.zip", site.url + path, part, patience, stop or Stop(), told.append, lines.append).run()
        finally:
            assert sum(told) == part.size == (part.path.stat().st_size if part.path.exists() else 0)
        return part

    return run


def require_whole(part: PartialFile, body: bytes = BODY) -> None:
    assert part.path.read_bytes() == body
    assert part.sha256 == hashlib.sha256(body).hexdigest()


def test_a_file_comes_in_one_request(site: Site, fetch: Callable[..., PartialFile]) -> None:
    require_whole(fetch())
    assert site.statuses(FILE) == [200]


@pytest.mark.parametrize("fault", ["truncate", "stall", "reset", "500", "502", "503", "nothing"])
def test_what_passes_is_tried_again(fault: str, site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, fault, fault)
    require_whole(fetch())


def test_the_rest_is_asked_for_and_appended(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "truncate", "stall", "truncate")
    require_whole(fetch())
    assert site.statuses(FILE) == [200, 206, 206, 206]
    starts = [int(request.range[6:-1]) for request in site.log if request.range]
    assert starts == sorted(starts)
    assert starts[0] > 80_000


def test_progress_restores_patience(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "truncate", "503", "truncate", "503", "500", "reset")
    with pytest.raises(RetriesExhausted, match="3 times in a row"):
        fetch()
    site.fail(FILE, "truncate", "503")
    require_whole(fetch())


def test_another_command_goes_on_and_the_hash_covers_all(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "truncate", "503", "503")
    with pytest.raises(RetriesExhausted):
        fetch()
    site.log.clear()
    require_whole(fetch())
    assert site.statuses(FILE) == [206]


def test_a_weak_tag_is_resumed_by_date_and_none_not_at_all(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.etag, site.date = 'W/"weak"', formatdate(0, usegmt=True)
    site.fail(FILE, "truncate")
    require_whole(fetch())
    assert site.statuses(FILE) == [200, 206]
    fetch().remove()
    site.log.clear()
    site.etag = site.date = None
    site.fail(FILE, "truncate")
    require_whole(fetch())
    assert site.statuses(FILE) == [200, 200]


def test_a_server_that_does_not_say_how_long_it_is(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "no length")
    require_whole(fetch())


@pytest.mark.parametrize("length", ["", "²", "٣٠", "1_0", "-1", "9" * 5000])
def test_a_length_that_is_no_number_is_none(length: str) -> None:
    assert Version.of("url", {"Content-Length": length}).total is None
    assert Version.of("url", {"Content-Length": "300"}).total == 300


@pytest.mark.parametrize("fault", ["ignore range", "wrong range"])
def test_a_server_that_cannot_resume_sends_it_from_zero(
    fault: str, site: Site, fetch: Callable[..., PartialFile]
) -> None:
    site.fail(FILE, "truncate", fault)
    require_whole(fetch())


def test_a_server_that_never_resumes_and_never_finishes_is_left(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.etag = None
    site.fail(FILE, *["truncate"] * 20)
    with pytest.raises(RetriesExhausted, match="3 times in a row"):
        fetch()


@pytest.mark.parametrize("length", [300_000, 100_000, 400_000])
def test_a_file_that_changed_starts_again(length: int, site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "truncate", "503", "503")
    with pytest.raises(RetriesExhausted):
        fetch()
    site.etag, site.files[FILE] = '"second"', np.random.default_rng(1).bytes(length)
    require_whole(fetch(), site.files[FILE])


def test_a_server_that_ignores_if_range_is_caught_by_its_tag(
    site: Site, fetch: Callable[..., PartialFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fail(FILE, "truncate", "503", "503")
    with pytest.raises(RetriesExhausted):
        fetch()
    site.etag, site.files[FILE] = '"second"', np.random.default_rng(1).bytes(300_000)
    monkeypatch.setattr("melanoma_dist.data.download.partial_file.Version.condition", '"second"')
    require_whole(fetch(), site.files[FILE])
    assert site.statuses(FILE)[-2:] == [206, 200]


def test_another_address_starts_again(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "truncate", "503", "503")
    with pytest.raises(RetriesExhausted):
        fetch()
    site.files["/mirror"] = bytes(1000)
    require_whole(fetch("/mirror"), bytes(1000))


def test_a_note_that_cannot_be_read_starts_again(site: Site, fetch: Callable[..., PartialFile], tmp_path: Path) -> None:
    site.fail(FILE, "truncate", "503", "503")
    with pytest.raises(RetriesExhausted):
        fetch()
    note = tmp_path / "raw" / "file.zip.part.json"
    note.write_text(note.read_text()[:20])
    site.log.clear()
    require_whole(fetch())
    assert site.statuses(FILE) == [200]


def test_too_many_requests_wait_as_told(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "429")
    start = time.monotonic()
    require_whole(fetch())
    assert time.monotonic() - start >= 1


def test_a_wait_that_is_too_long_ends_it(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "429")
    with pytest.raises(RetriesExhausted, match="asks to wait for 1 s"):
        fetch(patience=Patience(longest_retry_after_s=0.5))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert _retry_after("7") == 7
    assert 50 < _retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert _retry_after("²") == _retry_after("٣") == _retry_after("9" * 5000) == 0
    assert _retry_after("99999999999") == 99999999999
    assert _retry_after(formatdate(0, usegmt=True)) == _retry_after("soon") == _retry_after("") == 0


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_told_at_once(status: int, site: Site, fetch: Callable[..., PartialFile], tmp_path: Path) -> None:
    site.fail(FILE, str(status))
    with pytest.raises(DownloadError, match=rf"file\.zip.*{status}.*{site.url}.*--base-url") as caught:
        fetch()
    assert not isinstance(caught.value, RetriesExhausted)
    assert site.statuses(FILE) == [status]
    assert not list(tmp_path.rglob("*.part*"))


def test_a_login_page_is_no_file(site: Site, fetch: Callable[..., PartialFile], tmp_path: Path) -> None:
    site.fail(FILE, "html")
    with pytest.raises(DownloadError, match="web page"):
        fetch()
    assert not list(tmp_path.rglob("*.part*"))


def test_a_dead_server_is_named_with_its_cause(fetch: Callable[..., PartialFile], site: Site) -> None:
    site.url = "http://127.0.0.1:9"
    said = r"Connection refused; no answer, 3 times, from http://127\.0\.0\.1:9.*a line to the server"
    with pytest.raises(Unreachable, match=said):
        fetch()
    with pytest.raises(Unreachable, match="no answer, 2 times"):
        fetch(patience=Patience(attempts=9, attempts_unheard=2, first_wait_s=0.01))


def test_stopping_does_not_wait_for_a_silent_server(site: Site, fetch: Callable[..., PartialFile]) -> None:
    site.fail(FILE, "stall")
    stop = Stop()
    threading.Timer(0.3, stop).start()
    start = time.monotonic()
    with pytest.raises(Stopped):
        fetch(stop=stop, patience=Patience(read_s=15))
    assert time.monotonic() - start < 5
    site.log.clear()
    require_whole(fetch())
    assert site.statuses(FILE) == [206]
