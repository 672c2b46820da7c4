from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest

from melanoma_dist.data.download.partial_file import FileVersion, PartialFile
from melanoma_dist.data.download.transfer import (
    Cancellation,
    Cancelled,
    RetriesExhausted,
    RetryPolicy,
    ServerUnreachable,
    Transfer,
    _retry_after,
)
from melanoma_dist.errors import DownloadError

from .server import Site, serving

Fetch = Callable[..., PartialFile]
FILE = "/2019/file.zip"
BODY = np.random.default_rng(0).bytes(300_000)
FAST = RetryPolicy(connect_s=2, read_s=0.3, attempts=3, first_wait_s=0.01)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(files={FILE: BODY})) as site:
        yield site


@pytest.fixture
def fetch(site: Site, tmp_path: Path) -> Fetch:
    """Fetch the file as a new command would, and check that the reported bytes add up."""

    def run(path: str = FILE, cancellation: Cancellation | None = None, policy: RetryPolicy = FAST) -> PartialFile:
        part = PartialFile(tmp_path / "raw" / "file.zip")
        changes = [part.size]
        lines: list[str] = []
        try:
            Transfer(
                "file.zip", site.url + path, part, policy, cancellation or Cancellation(), changes.append, lines.append
            ).run()
        finally:
            assert sum(changes) == part.size == (part.path.stat().st_size if part.path.exists() else 0)
        return part

    return run


def require_whole(part: PartialFile, body: bytes = BODY) -> None:
    assert part.path.read_bytes() == body
    assert part.sha256 == hashlib.sha256(body).hexdigest()


def leave_a_part(site: Site, fetch: Fetch) -> None:
    """Interrupt a transfer: a part of the file arrives, and then the server refuses until all attempts are used."""
    site.fail(FILE, "truncate", *["503"] * 9)  # more than the attempts: a busy machine may miss an answer
    with pytest.raises(RetriesExhausted):
        fetch()
    site.fail(FILE)


def test_a_file_comes_in_one_request(site: Site, fetch: Fetch) -> None:
    require_whole(fetch())
    assert site.statuses(FILE) == [200]


@pytest.mark.parametrize("fault", ["truncate", "stall", "reset", "500", "502", "503", "nothing"])
def test_transient_errors_are_retried(fault: str, site: Site, fetch: Fetch) -> None:
    site.fail(FILE, fault, fault)
    require_whole(fetch())


def test_the_missing_bytes_are_requested_and_appended(site: Site, fetch: Fetch) -> None:
    site.fail(FILE, "truncate", "stall", "truncate")
    require_whole(fetch())
    assert site.statuses(FILE) == [200, 206, 206, 206]
    starts = [int(request.range[6:-1]) for request in site.log if request.range]
    assert starts == sorted(starts)
    assert starts[0] > 80_000


def test_progress_resets_the_number_of_failures(site: Site, fetch: Fetch) -> None:
    site.fail(FILE, "truncate", "503", "truncate", "503", "500", "reset")
    with pytest.raises(RetriesExhausted, match="3 times in a row"):
        fetch()
    site.fail(FILE, "truncate", "503")
    require_whole(fetch())


def test_another_command_resumes_and_the_hash_covers_all(site: Site, fetch: Fetch) -> None:
    leave_a_part(site, fetch)
    site.log.clear()
    require_whole(fetch())
    assert site.statuses(FILE) == [206]


def test_a_weak_tag_is_resumed_by_date_and_a_missing_one_is_not_resumed(site: Site, fetch: Fetch) -> None:
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


def test_a_server_that_announces_no_length(site: Site, fetch: Fetch) -> None:
    site.fail(FILE, "no length")
    require_whole(fetch())


@pytest.mark.parametrize("length", ["", "²", "٣٠", "1_0", "-1", "9" * 5000])
def test_an_invalid_length_counts_as_none(length: str) -> None:
    assert FileVersion.from_headers("url", {"Content-Length": length}).total is None
    assert FileVersion.from_headers("url", {"Content-Length": "300"}).total == 300


@pytest.mark.parametrize("fault", ["ignore range", "wrong range"])
def test_a_server_that_cannot_resume_restarts_from_zero(fault: str, site: Site, fetch: Fetch) -> None:
    site.fail(FILE, "truncate", fault)
    require_whole(fetch())


def test_a_server_that_never_resumes_and_never_finishes_is_given_up(site: Site, fetch: Fetch) -> None:
    site.etag = None
    site.fail(FILE, *["truncate"] * 20)
    with pytest.raises(RetriesExhausted, match="3 times in a row"):
        fetch()


@pytest.mark.parametrize("length", [300_000, 100_000, 400_000])
def test_a_changed_file_restarts(length: int, site: Site, fetch: Fetch) -> None:
    leave_a_part(site, fetch)
    site.etag, site.files[FILE] = '"second"', np.random.default_rng(1).bytes(length)
    require_whole(fetch(), site.files[FILE])


def test_a_server_that_ignores_if_range_is_detected_by_its_tag(
    site: Site, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_part(site, fetch)
    site.etag, site.files[FILE] = '"second"', np.random.default_rng(1).bytes(300_000)
    monkeypatch.setattr("melanoma_dist.data.download.partial_file.FileVersion.condition", '"second"')
    require_whole(fetch(), site.files[FILE])
    assert site.statuses(FILE)[-2:] == [206, 200]


def test_another_address_restarts(site: Site, fetch: Fetch) -> None:
    leave_a_part(site, fetch)
    site.files["/mirror"] = bytes(1000)
    require_whole(fetch("/mirror"), bytes(1000))


def test_an_unreadable_note_restarts(site: Site, fetch: Fetch, tmp_path: Path) -> None:
    leave_a_part(site, fetch)
    note = tmp_path / "raw" / "file.zip.part.json"
    note.write_text(note.read_text()[:20])
    site.log.clear()
    require_whole(fetch())
    assert site.statuses(FILE) == [200]


def test_retry_after_is_obeyed(site: Site, fetch: Fetch) -> None:
    site.fail(FILE, "429")
    start = time.monotonic()
    require_whole(fetch())
    assert time.monotonic() - start >= 1


def test_a_retry_after_that_is_too_long_ends_the_transfer(site: Site, fetch: Fetch) -> None:
    site.fail(FILE, "429")
    with pytest.raises(RetriesExhausted, match="asks to wait for 1 s"):
        fetch(policy=RetryPolicy(longest_retry_after_s=0.5))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert _retry_after("7") == 7
    assert 50 < _retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert _retry_after("²") == _retry_after("٣") == _retry_after("9" * 5000) == 0
    assert _retry_after("99999999999") == 99999999999
    assert _retry_after(formatdate(0, usegmt=True)) == _retry_after("soon") == _retry_after("") == 0


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_permanent_error_is_reported_at_once(status: int, site: Site, fetch: Fetch, tmp_path: Path) -> None:
    site.fail(FILE, str(status))
    with pytest.raises(DownloadError, match=rf"file\.zip.*{status}.*{site.url}.*--base-url") as caught:
        fetch()
    assert not isinstance(caught.value, RetriesExhausted)
    assert site.statuses(FILE) == [status]
    assert not list(tmp_path.rglob("*.part*"))


def test_a_login_page_is_not_the_file(site: Site, fetch: Fetch, tmp_path: Path) -> None:
    site.fail(FILE, "html")
    with pytest.raises(DownloadError, match="web page"):
        fetch()
    assert not list(tmp_path.rglob("*.part*"))


def test_an_unreachable_server_is_reported_with_its_cause(fetch: Fetch, site: Site) -> None:
    site.url = "http://127.0.0.1:9"
    pattern = r"Connection refused; no answer, 3 times, from http://127\.0\.0\.1:9.*Check the network connection"
    with pytest.raises(ServerUnreachable, match=pattern):
        fetch()
    with pytest.raises(ServerUnreachable, match="no answer, 2 times"):
        fetch(policy=RetryPolicy(attempts=9, attempts_unreachable=2, first_wait_s=0.01))


def test_cancelling_does_not_wait_for_a_silent_server(site: Site, fetch: Fetch) -> None:
    site.fail(FILE, "stall")
    cancellation = Cancellation()
    threading.Timer(0.3, cancellation.cancel).start()
    start = time.monotonic()
    with pytest.raises(Cancelled):
        fetch(cancellation=cancellation, policy=RetryPolicy(read_s=15))
    assert time.monotonic() - start < 5
    site.log.clear()
    require_whole(fetch())
    assert site.statuses(FILE) == [206]
