"""A local web server with faults that a test chooses."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    path: str
    range: str | None
    status: int


@dataclass
class Site:
    """The served files, the faults of the next answers, and a log of requests."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By path: the fault of each of the next answers; later answers are good."""
    etag: str | None = '"first"'
    date: str | None = None
    auth: str | None = None
    """The required Authorization header; None: not required."""
    log: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def fail(self, path: str, *faults: str) -> None:
        self.faults[path] = list(faults)

    def statuses(self, path: str) -> list[int]:
        return [request.status for request in self.log if request.path == path]


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        faults = site.faults.get(self.path, [])
        fault = faults.pop(0) if faults else ""
        body = site.files.get(self.path)
        if site.auth not in (None, self.headers.get("Authorization")):
            self._answer(401)
        elif body is None:
            self._answer(404)
        elif fault == "reset":
            self._reset()
        elif fault.isdigit():
            self._answer(int(fault), {"Retry-After": "1"} if fault == "429" else {})
        elif fault == "html":
            self._answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>please log in</html>")
        else:
            self._serve(body, fault)

    def _serve(self, body: bytes, fault: str) -> None:
        start = 0 if fault == "ignore range" else self._start()
        if start > len(body) or (start and start == len(body)):
            self._answer(416)
            return
        rest, status = body[start:], 206 if start else 200
        headers = {}
        if start:
            first = 0 if fault == "wrong range" else start
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        self._answer(status, headers, rest, fault)

    def _start(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (self.site.etag, self.site.date, None)
        return int(match[1]) if match and same else 0

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", fault: str = "") -> None:
        self.site.log.append(Request(self.path, self.headers.get("Range"), status))
        self.send_response(status)
        known = {"ETag": self.site.etag, "Last-Modified": self.site.date, **(headers or {})}
        for name, value in known.items():
            if value is not None:
                self.send_header(name, value)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body, fault)

    def _send(self, body: bytes, fault: str) -> None:
        if fault in ("truncate", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.site.closing.wait(20 if fault == "stall" else 0)
        elif fault == "nothing":
            pass
        elif fault == "drip":
            for at in range(0, len(body), 1 << 14):
                self.wfile.write(body[at : at + (1 << 14)])
                time.sleep(0.05)
        elif fault == "corrupt":
            middle = len(body) // 2
            self.wfile.write(body[:middle] + bytes([body[middle] ^ 255]) + body[middle + 1 :])
        else:
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that leave and connections that a test broke."""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    handler = type("Handler", (_Handler,), {"site": site})
    with _Server(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            site.closing.set()
            server.shutdown()
            thread.join()
