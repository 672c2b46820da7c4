from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from melanoma_dist import signals
from melanoma_dist.distributed import cluster

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the handlers after a test."""
    before = [signal.getsignal(number) for number in SIGNALS]
    signals.reset()
    yield
    signals.reset()
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def other_thread() -> Iterator[int]:
    """A thread that does not block the signals, as Ray's and PyTorch's threads do not."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert thread.ident is not None
    yield thread.ident
    end.set()
    thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("receiver", ["main", "other"])
def test_a_signal_during_the_start_of_ray_interrupts(
    number: signal.Signals, receiver: str, other_thread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        if receiver == "main":  # blocked here: pending until the mask is restored
            signal.pthread_kill(threading.get_ident(), number)
        else:
            signal.pthread_kill(other_thread, number)
            for _ in range(1000):  # until the handler raises; a signal to another thread ends no sleep of this one
                time.sleep(0.01)

    monkeypatch.setattr(ray, "init", init)
    signals.install_handlers()
    with pytest.raises(KeyboardInterrupt):
        cluster._init()
    assert signals.exit_code() == signals.TERMINATED


def test_processes_of_ray_block_the_signals_for_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(ray, "init", lambda **_: started.append(subprocess.Popen(["sleep", "60"])))
    cluster._init()
    (process,) = started
    try:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGUSR1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
    finally:
        process.kill()
        process.wait()
