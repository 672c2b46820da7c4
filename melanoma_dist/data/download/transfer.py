"""One file over HTTP, whatever the line does: resumed where it stopped, retried while that helps, never mixed.

``<name>.part`` holds the bytes so far and ``<name>.part.json`` which version of which address they belong to. A byte
range is appended only if the server shows that it is of that very version; otherwise the file starts again from zero.
"""

from __future__ import annotations

import email.utils
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import requests

from melanoma_dist.data.download.catalogue import OLDER_BASE_URL
from melanoma_dist.data.download.partial_file import PartialFile, Version, decimal
from melanoma_dist.errors import DownloadError
from melanoma_dist.storage.backoff import Backoff

_CHUNK = 1 << 16  # bytes; what a broken connection loses at most
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "melanoma-dist"}
_LINE_FAULTS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Patience:
    """How long a transfer goes on without progress."""

    connect_s: float = 15.0
    read_s: float = 60.0
    """Longest silence of the server."""
    attempts: int = 10
    """Failures in a row, without a new byte, before it gives up."""
    attempts_unheard: int = 4
    """The same, while the server has not answered at all: most often there is no line, or the address is wrong."""
    first_wait_s: float = 1.0
    """Doubles from one failure to the next, up to ``longest_wait_s``, and varies at random by half."""
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 600.0
    """A server that asks for a longer wait ends the transfer."""


USUAL = Patience()
ELSEWHERE = (
    "Look at that address in a browser; --base-url names another server that has the files "
    f"(older tools used {OLDER_BASE_URL})."
)


class Stopped(Exception):
    """The transfer was told to stop; what it has is kept."""


class RetriesExhausted(DownloadError):
    """A transfer that gave up after all its attempts: other files will hardly fare better."""


class Unreachable(RetriesExhausted):
    """The server never answered: no other file will come either."""


class _TryAgain(Exception):
    """An attempt failed in a way that another one may not; ``wait_s`` is what the server asks for."""

    def __init__(self, cause: str, wait_s: float = 0.0) -> None:
        super().__init__(cause)
        self.wait_s = wait_s


@dataclass
class Stop:
    """Ends all transfers that share it, also those that wait for a silent server."""

    _event: threading.Event = field(default_factory=threading.Event)
    _open: set[requests.Response] = field(default_factory=set)

    def __call__(self) -> None:
        """Stop everything."""
        self._event.set()
        for response in tuple(self._open):
            with suppress(ValueError, RuntimeError, OSError):  # it ended by itself meanwhile
                response.raw.shutdown()

    def check(self, wait_s: float = 0.0) -> None:
        """Raise Stopped if it is time, waiting ``wait_s`` for that."""
        if self._event.wait(wait_s):
            raise Stopped

    def watch(self, response: requests.Response) -> None:
        """Include a response whose body is about to be read."""
        self._open.add(response)
        self.check()

    def forget(self, response: requests.Response) -> None:
        """A response is done with."""
        self._open.discard(response)


@dataclass
class Transfer:
    """The file at ``url`` on its way into ``part``."""

    name: str
    url: str
    part: PartialFile
    patience: Patience
    stop: Stop
    on_bytes: Callable[[int], None]
    """Told every change of the number of bytes held; negative where it starts again."""
    say: Callable[[str], None]
    auth: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """User name and password of the server; ``url`` holds none."""
    _heard: bool = False
    """Whether the server has answered anything."""

    def run(self) -> None:
        """Fetch the rest. Raises DownloadError (RetriesExhausted among them), Stopped, and OSError from the disk."""
        if not self.part.belongs_to(self.url):
            self._restart()
        failures, furthest = 0, self.part.size
        with requests.Session() as session:
            while not self.part.complete:
                self.stop.check()
                try:
                    self._attempt(session)
                except _TryAgain as error:
                    # Only bytes never held before are progress: without ranges, the first ones come again for ever.
                    failures = 1 if self.part.size > furthest else failures + 1
                    furthest = max(furthest, self.part.size)
                    self._pause(failures, error)

    def _pause(self, failures: int, error: _TryAgain) -> None:
        self.stop.check()
        patience = self.patience
        if error.wait_s > patience.longest_retry_after_s:
            raise RetriesExhausted(
                f"{self.name}: {error}, and the server asks to wait for {error.wait_s:.0f} s. {_later()}"
            )
        most = patience.attempts if self._heard else min(patience.attempts, patience.attempts_unheard)
        if failures >= most and not self._heard:
            raise Unreachable(f"{self.name}: {error}; no answer, {failures} times, from {self.url}. {_unreachable()}")
        if failures >= most:
            raise RetriesExhausted(f"{self.name}: {error}, {failures} times in a row from {self.url}. {_later()}")
        wait = max(error.wait_s, Backoff(patience.first_wait_s, patience.longest_wait_s).wait_s(failures))
        self.say(f"{self.name}: {error}; again in {wait:.1f} s (failure {failures} of {most}).")
        self.stop.check(wait)

    def _attempt(self, session: requests.Session) -> None:
        timeouts = (self.patience.connect_s, self.patience.read_s)
        headers = _HEADERS | self._range()
        response = None
        try:
            response = session.get(self.url, headers=headers, stream=True, timeout=timeouts, auth=self.auth)
            self._heard = True
            self.stop.watch(response)
            self._read(response, self._accept(response))
        except _LINE_FAULTS as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self._final(f"the server's certificate is not trusted ({_cause(error)})") from error
            raise _TryAgain(_cause(error)) from error
        except requests.RequestException as error:
            raise self._final(_cause(error)) from error
        finally:
            if response is not None:
                self.stop.forget(response)
                response.close()

    def _range(self) -> dict[str, str]:
        """Ask for what is missing, if the server can tell whether the file is still the same."""
        version = self.part.version
        if not self.part.size or version is None or not version.condition:
            return {}
        return {"Range": f"bytes={self.part.size}-", "If-Range": version.condition}

    def _accept(self, response: requests.Response) -> Version:
        """Judge the status and the headers; the body is then what follows the bytes of the part, of this version."""
        status, headers = response.status_code, response.headers
        if status in _RETRIED:
            raise _TryAgain(f"the server answers {status}", _retry_after(headers.get("Retry-After", "")))
        if status not in (200, 206, 416):
            raise self._final(f"the server answers {status} {response.reason}")
        if status == 200 and headers.get("Content-Type", "").startswith("text/html"):
            raise self._final("the server sends a web page (a login?) instead of the file")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise self._final("the server sends the file in an encoding that was not asked for")
        if status == 200:
            version = Version.of(self.url, response.headers)
            self._restart(version)
            return version
        if (known := self.part.version) is not None and self._continues(known, response):
            return known
        self._restart()
        raise _TryAgain("the rest that the server offers does not belong to the bytes that are here")

    def _continues(self, version: Version, response: requests.Response) -> bool:
        """Whether a partial answer begins where the part ends and is of the same version."""
        headers = response.headers
        found = re.fullmatch(
            r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", headers.get("Content-Range", "").strip()
        )
        if response.status_code != 206 or found is None or version.total is None:
            return False
        right = (int(found[1]), int(found[2])) == (self.part.size, version.total - 1)
        return right and found[3] in ("*", str(version.total)) and version.agrees(headers)

    def _read(self, response: requests.Response, version: Version) -> None:
        with self.part.appending() as append:
            for chunk in response.iter_content(_CHUNK):
                append(chunk)
                self.on_bytes(len(chunk))
                self.stop.check()
        self._require_length(version)

    def _require_length(self, version: Version) -> None:
        if version.total is None:  # a server that does not say: the checks of what arrived must do
            self.part.close(version)
        elif self.part.size < version.total:
            raise _TryAgain(f"the body ended after {self.part.size} of {version.total} bytes")
        elif self.part.size > version.total:
            self._restart()
            raise _TryAgain(f"more came than the {version.total} bytes announced")

    def _restart(self, version: Version | None = None) -> None:
        self.on_bytes(-self.part.size)
        self.part.restart(version)

    def _final(self, cause: str) -> DownloadError:
        return DownloadError(f"{self.name}: {cause}, from {self.url}. {ELSEWHERE}")


def _later() -> str:
    return "What has arrived is kept: give the same command again when the line or the server has recovered."


def _unreachable() -> str:
    return f"Is there a line to the server? Then give the same command again. {ELSEWHERE}"


def _cause(error: Exception) -> str:
    """The innermost reason in words: requests wraps it three times."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)) is not None:
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    return str(inner).strip() or type(inner).__name__


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which gives them or a date; 0.0 if it is absent or senseless."""
    if (seconds := decimal(value)) is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
