from __future__ import annotations

import os
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_during_the_start_of_ray_interrupts(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        os.kill(os.getpid(), number)

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
