"""The command as a process: it says where it listens, survives slow clients, drains on signals and writes nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import melanoma_dist
from melanoma_dist.app.server.command import _accept, _listen
from melanoma_dist.cli import main
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.errors import ConfigError

from .conftest import form, lesion

ROOT = Path(melanoma_dist.__file__).parents[1]


@dataclass
class Process:
    """A running server."""

    process: subprocess.Popen[str]
    address: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


def start(run: Path, folder: Path, *flags: str) -> Process:
    command = [
        sys.executable,
        str(ROOT / "launch.py"),
        "serve",
        str(run),
        "--port",
        "0",
        "--decode-threads",
        "1",
        *flags,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if match := re.search(r"listening on (http://\S+?/)(?:#token=(\S+))?$", line.strip()):
            return Process(process, match[1], match[2] or "")
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def server(finished: Path, place: Path) -> Iterator[Process]:
    started = start(finished, place, "--host", "127.0.0.2", "--timeout", "8")
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()


def wait_for_images(server: Process, count: int) -> None:
    """Wait until so many images wait or are predicted."""
    with httpx.Client(base_url=server.address) as client:
        for _ in range(300):
            match = re.search(r"^melanoma_dist_queue_images (\S+)$", client.get("/metrics").text, re.MULTILINE)
            if match and float(match[1]) >= count:
                return
            time.sleep(0.05)
    raise AssertionError(f"{count} images never waited together")


def test_one_process_answers_drains_and_leaves_nothing(server: Process, place: Path, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    slow = socket.create_connection(("127.0.0.2", httpx.URL(server.address).port or 0))
    slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.2\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                 b"Content-Length: 1000000\r\n\r\n--b\r\n")  # fmt: skip
    with httpx.Client(base_url=server.address, timeout=60) as client:
        assert client.get("/v1/health").json() == {"status": "ok"}
        response = client.post("/v1/predict", files=form(lesion(0), b"x"))
        assert [image["error"] for image in response.json()["images"]] == ["", "not an image"]
    statuses: list[int] = []

    def ask(number: int) -> None:
        images = form(*(lesion(10 * number + each) for each in range(8)))
        statuses.append(httpx.post(server.address + "v1/predict", files=images, timeout=60).status_code)

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for client_thread in clients:
        client_thread.start()
    wait_for_images(server, 32)
    code, output = server.stop()
    for client_thread in clients:
        client_thread.join()
    slow.settimeout(30)
    assert b" 408 " in slow.recv(4096)  # after its time, and others were answered meanwhile
    slow.close()
    assert code == 0, output
    assert "stopped: all requests were answered." in output
    assert statuses == [200] * 4
    assert "Traceback" not in output
    assert list(place.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_port_in_use_is_a_mistake_of_the_user(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", str(finished), "--port", str(port)]) == 2
    assert f"--port {port}: cannot listen there" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port 70000: must be 0 to 65535"),
        (["--queue", "8"], "--max-files 32: must be at most --queue (8)"),
        (["--tls-cert", "a.pem"], "--tls-cert, --tls-key: give both, or neither"),
        (["--max-megapixels", "65"], "--max-megapixels 65: must be 1 to 64"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(
    flags: list[str], message: str, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(finished), *flags]) == 2
    captured = capfd.readouterr()
    assert message in captured.err
    assert "loading" not in captured.out


@pytest.mark.slow
def test_beyond_loopback_a_token_is_printed_once_and_needed(finished: Path, tmp_path: Path) -> None:
    server = start(finished, tmp_path, "--host", "0.0.0.0")  # noqa: S104  # behind its token, for seconds
    address = server.address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    try:
        assert httpx.get(server.address).status_code == 200  # the address as it is printed
        assert len(server.token) >= 32
        for headers in ({}, {"Authorization": "Bearer x"}):
            assert httpx.post(address + "v1/predict", files=form(lesion(0)), headers=headers).status_code == 401
        answer = httpx.post(address + "v1/predict", files=form(lesion(0)), headers=server.headers, timeout=60)
        assert answer.status_code == 200
    finally:
        code, output = server.stop(signal.SIGINT)
    assert code == 0
    assert server.token not in output


def test_a_port_that_another_server_took_meanwhile_is_told_without_a_traceback() -> None:
    settings = ServeConfig(Path("run"), port=free_port())
    first, second = _listen(settings), _listen(settings)  # while both warm up
    with first, second:
        _accept(first, settings)
        with pytest.raises(ConfigError, match=f"--port {settings.port}: cannot listen there .* Choose another --port"):
            _accept(second, settings)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
