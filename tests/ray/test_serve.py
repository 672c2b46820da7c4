"""`serve --replicas 2` under Ray Serve: the answers of `predict`, the loss of a replica under load, and a drain."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from melanoma_dist.cli import main

from ..unit.app.server.conftest import _threads, data, finished, form, lesion
from ..unit.app.server.test_command import Process, start

__all__ = ["_threads", "data", "finished"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REPLICAS = 2
CLIENTS = 4
LOAD_S = 20.0
ANSWER_S = 120.0


@pytest.fixture(scope="module")
def server(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    started = start(finished, tmp_path_factory.mktemp("place"), "--replicas", str(REPLICAS))
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [lesion(number) for number in range(6)]


@pytest.fixture(scope="module")
def expected(finished: Path, images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The answers of the command."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(images):
        (folder / f"{number}.jpg").write_bytes(image)
    out = folder / "answers.json"
    assert main(["predict", str(finished), str(folder), "--out", str(out), "--gpus", "0", "-j", "1"]) == 0
    return list(json.loads(out.read_text()))


def replicas(server: Process) -> list[psutil.Process]:
    """The processes of the replicas that are alive."""
    alive = []
    for child in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended, or is a zombie
            alive += [child] if "ServeReplica" in "".join(child.cmdline()[:1]) else []
    return alive


def is_right(answer: dict[str, Any], row: dict[str, Any]) -> bool:
    numbers = {name: value for name, value in row.items() if isinstance(value, float)}
    return answer["sha256"] == row["sha256"] and all(
        answer[name] == pytest.approx(value, abs=1e-5) for name, value in numbers.items()
    )


def ask(server: Process, images: list[bytes]) -> httpx.Response:
    return httpx.post(server.address + "v1/predict", files=form(*images), timeout=ANSWER_S)


def test_the_answers_are_those_of_the_command(
    server: Process, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    for _ in range(2 * REPLICAS):
        answers = ask(server, [*images, b"text"]).json()["images"]
        assert all(is_right(*pair) for pair in zip(answers[:-1], expected, strict=True))
        assert answers[-1]["error"] == "not an image"
    model = httpx.get(server.address + "v1/model", timeout=ANSWER_S).json()
    assert model["model"]["fingerprint"] == ask(server, images[:1]).json()["model"]["fingerprint"]


class Load:
    """Clients that ask for single images, one after the other, and note when and how each was answered."""

    def __init__(self, server: Process, images: list[bytes], expected: list[dict[str, Any]]) -> None:
        self._server, self._images, self._expected = server, images, expected
        self._stop = threading.Event()
        self.right: list[float] = []  # when each request began
        self.wrong: list[str] = []
        self.refused: list[tuple[float, float, str]] = []  # begin, end, reason
        self._clients = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(CLIENTS)]
        for client in self._clients:
            client.start()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            number = (number + 1) % len(self._images)
            begin = time.monotonic()
            try:
                response = ask(self._server, [self._images[number]])
            except httpx.HTTPError as error:
                self.refused.append((begin, time.monotonic(), repr(error)))
                continue
            if response.status_code != 200:
                self.refused.append((begin, time.monotonic(), f"{response.status_code} {response.text[:200]}"))
            elif is_right(response.json()["images"][0], self._expected[number]):
                self.right.append(begin)
            else:
                self.wrong.append(response.text)

    def end(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()


def test_a_replica_that_is_killed_costs_the_requests_in_flight_alone(
    server: Process, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    load = Load(server, images, expected)
    time.sleep(LOAD_S / 4)
    before = replicas(server)
    assert len(before) == REPLICAS
    before[0].kill()
    killed = time.monotonic()
    deadline = killed + ANSWER_S
    while time.monotonic() < deadline:
        alive = replicas(server)
        if len(alive) == REPLICAS and before[0] not in alive and time.monotonic() > killed + LOAD_S:
            break
        time.sleep(0.5)
    load.end()
    assert len(replicas(server)) == REPLICAS
    assert load.wrong == []
    assert len([begin for begin in load.right if begin < killed]) > 0
    assert len([begin for begin in load.right if begin > killed]) > CLIENTS
    assert len(load.refused) <= CLIENTS, load.refused
    assert all(begin <= killed <= end for begin, end, _ in load.refused), (killed, load.refused)


def test_a_signal_drains_and_the_exit_code_is_0(
    server: Process, images: list[bytes], expected: list[dict[str, Any]]
) -> None:
    responses: list[httpx.Response] = []
    clients = [
        threading.Thread(target=lambda: responses.append(ask(server, images)), daemon=True) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    output, _ = server.process.communicate(timeout=ANSWER_S)
    assert [response.status_code for response in responses] == [200] * CLIENTS
    for response in responses:
        assert all(is_right(*pair) for pair in zip(response.json()["images"], expected, strict=True))
    assert server.process.returncode == 0, output
    assert "stopped: all requests were answered." in output
    assert "Traceback" not in output
