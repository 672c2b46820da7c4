"""Download one file over HTTP: resumed where it stopped, retried while that helps, never mixed from two versions.

``<name>.part`` holds the bytes so far, and ``<name>.part.json`` the address and version they belong to. A byte range is
appended only if the server proves that it belongs to that version; otherwise the download restarts from zero.
"""

from __future__ import annotations

import email.utils
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import requests

from melanoma_dist.data.download.partial_file import FileVersion, PartialFile, parse_decimal
from melanoma_dist.errors import DownloadError
from melanoma_dist.storage.backoff import Backoff

_CHUNK = 1 << 16  # bytes; a broken connection loses at most one
_RETRYABLE = {408, 425, 429, 500, 502, 503, 504}
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "melanoma-dist"}
_CONNECTION_ERRORS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_RESUME_HINT = "The downloaded bytes are kept: run the same command again once the connection or the server is back."

Credentials = tuple[bytes, bytes]
"""User name and password, as requests takes them."""

BASE_URL_HINT = (
    "Open that address in a browser; --base-url selects another server that has the files "
    "(older tools used https://isic-challenge-data.s3.amazonaws.com)."
)


@dataclass(frozen=True)
class RetryPolicy:
    """How long a transfer is retried without progress."""

    connect_s: float = 15.0
    read_s: float = 60.0
    """Longest silence of the server."""
    attempts: int = 10
    """Failures in a row, without a new byte, before it gives up."""
    attempts_unreachable: int = 4
    """The same before the first answer: then the network is down or the address is wrong, most often."""
    first_wait_s: float = 1.0
    """Doubles from one failure to the next, up to ``longest_wait_s``, and varies at random by half."""
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 600.0
    """A server that asks for a longer wait ends the transfer."""


DEFAULT_RETRIES = RetryPolicy()


class Cancelled(Exception):
    """The transfer was cancelled; its bytes are kept."""


class RetriesExhausted(DownloadError):
    """A transfer gave up after all its attempts: other files will hardly do better."""


class ServerUnreachable(RetriesExhausted):
    """The server never answered: no other file can be fetched either."""


class _TransientError(Exception):
    """A failed attempt that is worth a retry; ``wait_s`` is the wait that the server asks for."""

    def __init__(self, cause: str, wait_s: float = 0.0) -> None:
        super().__init__(cause)
        self.wait_s = wait_s


@dataclass
class Cancellation:
    """Cancels all transfers that share it, including those that wait for a silent server."""

    _event: threading.Event = field(default_factory=threading.Event)
    _open: set[requests.Response] = field(default_factory=set)

    def cancel(self) -> None:
        """Cancel everything."""
        self._event.set()
        for response in tuple(self._open):
            with suppress(ValueError, RuntimeError, OSError):  # it ended by itself meanwhile
                response.raw.shutdown()

    def check(self, wait_s: float = 0.0) -> None:
        """Raise Cancelled at once or within ``wait_s``, if cancelled by then."""
        if self._event.wait(wait_s):
            raise Cancelled

    @contextmanager
    def watching(self, response: requests.Response) -> Iterator[None]:
        """Include a response while its body is read in the block, then close it."""
        self._open.add(response)
        try:
            self.check()
            yield
        finally:
            self._open.discard(response)
            response.close()


@dataclass
class Transfer:
    """Downloads the file at ``url`` into ``part``."""

    name: str
    url: str
    part: PartialFile
    policy: RetryPolicy
    cancellation: Cancellation
    on_bytes: Callable[[int], None]
    """Called with every change of the number of bytes on the disk; negative after a restart."""
    log: Callable[[str], None]
    auth: Credentials | None = field(default=None, repr=False)
    """Credentials for the server; ``url`` holds none."""
    _has_answer: bool = False
    """Whether the server has answered anything."""

    def run(self) -> None:
        """Download the missing bytes. Raises DownloadError, Cancelled, and OSError from the disk."""
        if not self.part.is_from(self.url):
            self._restart()
        failures, furthest = 0, self.part.size
        with requests.Session() as session:
            while not self.part.is_complete:
                self.cancellation.check()
                try:
                    self._attempt(session)
                except _TransientError as error:
                    # Only bytes beyond the furthest so far are progress. A server without ranges sends the first ones
                    # again and again, for ever.
                    failures = 1 if self.part.size > furthest else failures + 1
                    furthest = max(furthest, self.part.size)
                    self._wait_or_give_up(failures, error)

    def _wait_or_give_up(self, failures: int, error: _TransientError) -> None:
        self.cancellation.check()
        policy = self.policy
        if error.wait_s > policy.longest_retry_after_s:
            cause = f"{error}, and the server asks to wait for {error.wait_s:.0f} s"
            raise RetriesExhausted(f"{self.name}: {cause}. {_RESUME_HINT}")
        limit = policy.attempts if self._has_answer else min(policy.attempts, policy.attempts_unreachable)
        if failures >= limit and not self._has_answer:
            raise ServerUnreachable(
                f"{self.name}: {error}; no answer, {failures} times, from {self.url}. Check the network connection, "
                f"then run the same command again. {BASE_URL_HINT}"
            )
        if failures >= limit:
            raise RetriesExhausted(f"{self.name}: {error}, {failures} times in a row from {self.url}. {_RESUME_HINT}")
        wait = max(error.wait_s, Backoff(policy.first_wait_s, policy.longest_wait_s).wait_s(failures))
        self.log(f"{self.name}: {error}; again in {wait:.1f} s (failure {failures} of {limit}).")
        self.cancellation.check(wait)

    def _attempt(self, session: requests.Session) -> None:
        timeouts = (self.policy.connect_s, self.policy.read_s)
        headers, version = dict(_HEADERS), self.part.version
        # Ask for the missing bytes only, if the server can tell whether the file is still the same version.
        if self.part.size and version is not None and version.condition:
            headers |= {"Range": f"bytes={self.part.size}-", "If-Range": version.condition}
        try:
            response = session.get(self.url, headers=headers, stream=True, timeout=timeouts, auth=self.auth)
            self._has_answer = True
            with self.cancellation.watching(response):
                self._read_body(response, self._accept(response))
        except _CONNECTION_ERRORS as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self._permanent(f"the server's certificate is not trusted ({_innermost(error)})") from error
            raise _TransientError(_innermost(error)) from error
        except requests.RequestException as error:
            raise self._permanent(_innermost(error)) from error

    def _accept(self, response: requests.Response) -> FileVersion:
        """Check status and headers, so that the body continues the partial file; return its version."""
        status, headers = response.status_code, response.headers
        if status in _RETRYABLE:
            raise _TransientError(f"the server answers {status}", _retry_after(headers.get("Retry-After", "")))
        if status not in (200, 206, 416):
            raise self._permanent(f"the server answers {status} {response.reason}")
        if status == 200 and headers.get("Content-Type", "").startswith("text/html"):
            raise self._permanent("the server sends a web page (a login?) instead of the file")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise self._permanent("the server sends the file in an encoding that was not requested")
        if status == 200:
            version = FileVersion.from_headers(self.url, response.headers)
            self._restart(version)
            return version
        if (known := self.part.version) is not None and self._continues(known, response):
            return known
        self._restart()
        raise _TransientError("the byte range from the server does not continue the downloaded bytes")

    def _continues(self, version: FileVersion, response: requests.Response) -> bool:
        """Whether a partial response begins where the part ends and has the same version."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if response.status_code != 206 or match is None or version.total is None:
            return False
        is_rest = (int(match[1]), int(match[2])) == (self.part.size, version.total - 1)
        return is_rest and match[3] in ("*", str(version.total)) and version.matches(response.headers)

    def _read_body(self, response: requests.Response, version: FileVersion) -> None:
        with self.part.appending() as append:
            for chunk in response.iter_content(_CHUNK):
                append(chunk)
                self.on_bytes(len(chunk))
                self.cancellation.check()
        if version.total is None:  # without an announced length, only the checks of the content can tell
            self.part.mark_complete(version)
        elif self.part.size < version.total:
            raise _TransientError(f"the body ended after {self.part.size} of {version.total} bytes")
        elif self.part.size > version.total:
            self._restart()
            raise _TransientError(f"the server sent more than the announced {version.total} bytes")

    def _restart(self, version: FileVersion | None = None) -> None:
        self.on_bytes(-self.part.size)
        self.part.restart(version)

    def _permanent(self, cause: str) -> DownloadError:
        return DownloadError(f"{self.name}: {cause}, from {self.url}. {BASE_URL_HINT}")


def _innermost(error: Exception) -> str:
    """Return the message of the innermost cause; requests wraps it three times."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)) is not None:
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    return str(inner).strip() or type(inner).__name__


def _retry_after(value: str) -> float:
    """Return the seconds of a Retry-After header, which holds seconds or a date; 0.0 if it is absent or invalid."""
    if (seconds := parse_decimal(value)) is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
