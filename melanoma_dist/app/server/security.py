"""Who may speak to the server: a middleware that checks the names, the origin and the token of each request.

Web pages can send forms to any address without asking, and a name that they control may lead to this machine (DNS
rebinding). So the name that a browser asked for must be one of this server's, and a page that sends a request must
come from it. Cookies are never set or read.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection

import psutil
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from melanoma_dist.app.server.problems import Problem
from melanoma_dist.config.serve import ServeConfig

_OPEN = ("/v1/health", "/docs", "/openapi.json")  # paths that tell nothing of the run; so does the page
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # nosec B104  # compared with, not listened on

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def host_names(settings: ServeConfig) -> frozenset[str]:
    """The names by which the server may be addressed, in lower case."""
    names = {*settings.allow_hosts, *_LOOPBACK, settings.host}  # 0.0.0.0 too: the command prints it to be opened
    if settings.host in EVERY_ADDRESS:
        names |= {socket.gethostname(), socket.getfqdn()}
        names |= {address.address.partition("%")[0] for each in psutil.net_if_addrs().values() for address in each}
    return frozenset(name.lower() for name in names)


class Gate:
    """Refuses requests of strangers, and adds security headers to every answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str | None, open_paths: Collection[str]) -> None:
        """``open_paths``: paths besides those of the API that need no token."""
        self._app, self._hosts, self._token = app, hosts, token
        self._open = {*_OPEN, *open_paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._problem(Headers(scope=scope), scope["path"])
        await (self._app if problem is None else problem.response())(scope, receive, send_with_headers)

    def _problem(self, headers: Headers, path: str) -> Problem | None:
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            remedy = "The server's operator can allow another one with --allow-hosts."
            return Problem(421, "unknown_host", f"This server does not answer to the name of this request. {remedy}")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return Problem(403, "other_site", "Another web site may not use this server.")
        if self._token is None or path in self._open or self._authorized(headers.get("authorization", "")):
            return None
        challenge = {"WWW-Authenticate": "Bearer"}
        return Problem(401, "token", "Show the token of this server: `Authorization: Bearer TOKEN`.", challenge)

    def _authorized(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        # Bytes: the comparison of texts fails for characters beyond ASCII.
        return (
            secrets.compare_digest(token.strip().encode(), (self._token or "").encode()) and scheme.lower() == "bearer"
        )


def _name(host: str) -> str:
    """The name in a Host header, without the port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
