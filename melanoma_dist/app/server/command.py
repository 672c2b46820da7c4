"""The `serve` command: load a run, warm it up, listen, and answer until a signal ends it.

The first signal drains: requests that were received are answered, no new ones are accepted, and the exit code is 0.
"""

from __future__ import annotations

import errno
import resource
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import uvicorn
from fastapi import FastAPI

from melanoma_dist import console
from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.description import PURPOSE
from melanoma_dist.app.server.security import EVERY_ADDRESS
from melanoma_dist.app.server.service import start_service
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run

_DRAIN_S = 5  # seconds for answers to leave, after the last request had its time


@dataclass(frozen=True)
class Access:
    """The token of a server and whether the user knows it."""

    token: str | None
    is_new: bool


def serve(settings: ServeConfig) -> None:
    """Serve until a signal ends it. Reports mistakes before it listens."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold images
    access = choose_token(settings)
    run = open_trained_run(settings.run)
    run.require_sight()
    listener = _listen(settings)
    if settings.replicas > 1:
        _serve_replicas(run, settings, listener, access)
    else:
        _serve_here(run, settings, listener, access)
    console.info("stopped: all requests were answered.")


def _serve_replicas(run: TrainedRun, settings: ServeConfig, listener: socket.socket, access: Access) -> None:
    from melanoma_dist.app.server.replicas import serve_replicas  # Ray Serve is an extra

    settings = replace(settings, port=listener.getsockname()[1])
    text = _announcement(run, settings, listener, access)
    listener.close()  # Ray Serve's own process listens
    serve_replicas(settings, access.token, lambda: console.info(text))


def _serve_here(run: TrainedRun, settings: ServeConfig, listener: socket.socket, access: Access) -> None:
    service = start_service(run, settings)
    try:
        _accept(listener, settings)
        console.info(_announcement(run, settings, listener, access))
        _Server(_config(build_app(service, settings, access.token), settings)).run([listener])
    finally:
        listener.close()
        service.close()


def choose_token(settings: ServeConfig) -> Access:
    """The user's token; beyond loopback a new one if there is none. Raises ConfigError for a bad one."""
    token = settings.token()
    if token is None and not settings.loopback:
        return Access(secrets.token_urlsafe(32), True)
    return Access(token, False)


def _listen(settings: ServeConfig) -> socket.socket:
    """Take the port before anything heavy is loaded. Connections are refused until the server is warm."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        with ExitStack() as cleanup:
            listener = cleanup.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
            cleanup.pop_all()
    except OSError as error:
        raise _cannot_listen(settings, error) from error
    return listener


def _accept(listener: socket.socket, settings: ServeConfig) -> None:
    """Accept connections. Raises ConfigError if another server took the same port while both were warming up."""
    try:
        listener.listen()
    except OSError as error:
        raise _cannot_listen(settings, error) from error


def _cannot_listen(settings: ServeConfig, error: OSError) -> ConfigError:
    place = f"--host {settings.host} --port {settings.port}"
    wrong = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
    return ConfigError(f"{place}: cannot listen there ({error.strerror}). Choose another {wrong}.")


def _config(app: FastAPI, settings: ServeConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,  # it would hold paths and addresses
        log_level="error",
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=int(settings.timeout) + _DRAIN_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


class _Server(uvicorn.Server):
    """A server whose signals end it without an error."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain at the first signal; a second Ctrl-C does not wait. uvicorn would raise the signal again at the end."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _announcement(run: TrainedRun, settings: ServeConfig, listener: socket.socket, access: Access) -> str:
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{scheme}://{host}:{listener.getsockname()[1]}/"
    synthetic = " It was trained on SYNTHETIC DATA." if run.synthetic else ""
    lines = [f"{run.folder.path}: {run.config.data.folds} folds of {run.config.model.backbone}.{synthetic}"]
    if not settings.loopback and settings.tls_cert is None:
        lines.append("Traffic is not encrypted: give --tls-cert and --tls-key, or put a proxy with HTTPS before it.")
    if access.is_new:
        lines.append("Whoever has this address may use the server. Its token is not shown again:")
        address += f"#token={access.token}"
    lines.append(f"listening on {address}")
    if settings.host in EVERY_ADDRESS:
        name = socket.gethostname()
        lines.append(f"From another machine, write {name} or an address of this one instead of {settings.host}.")
    lines.append(f"{PURPOSE} No image is stored. Ctrl-C drains and stops.")
    return "\n".join(lines)
