"""Ranks ask again and again whether to stop, and no request stays behind: a sweep starts thousands of ranks."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT

STARTS = 1500  # Ray answers a thousand calls of an actor at once, and lets others wait
SCRIPT = f"""
import time
import ray
from melanoma_dist.distributed.cluster import joined
from melanoma_dist.distributed.event_queue import EventQueue, Reporter
from melanoma_dist.config.hardware import HardwareConfig

def stops(reporter):
    limit = time.monotonic() + 30
    while not (answer := reporter.stop_requested()) and time.monotonic() < limit:
        time.sleep(0.05)
    return answer

with joined(HardwareConfig(gpus=0)):
    queue = EventQueue.remote()
    reporters = [Reporter(None, queue) for _ in range({STARTS})]
    time.sleep(0.3)
    assert not any([each.stop_requested() for each in reporters])
    assert ray.get(queue.take_all.remote(), timeout=60) == []
    time.sleep(0.3)
    assert not any([each.stop_requested() for each in reporters])
    ray.get(queue.request_stop.remote(), timeout=60)
    assert stops(reporters[0]) and stops(reporters[-1])
"""


def test_a_request_to_stop_reaches_every_rank_however_many_there_are() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
