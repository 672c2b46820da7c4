"""Ranks ask again and again whether to leave, and nothing of it stays: a sweep starts thousands of them."""

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
from melanoma_dist.distributed.event_queue import Mailbox, Reporter
from melanoma_dist.config.hardware import HardwareConfig

def asked(reporter):
    limit = time.monotonic() + 30
    while not (answer := reporter.asked_to_leave()) and time.monotonic() < limit:
        time.sleep(0.05)
    return answer

with joined(HardwareConfig(gpus=0)):
    mailbox = Mailbox.remote()
    reporters = [Reporter(None, mailbox) for _ in range({STARTS})]
    time.sleep(0.3)
    assert not any([each.asked_to_leave() for each in reporters])
    assert ray.get(mailbox.take.remote(), timeout=60) == []
    time.sleep(0.3)
    assert not any([each.asked_to_leave() for each in reporters])
    ray.get(mailbox.leave.remote(), timeout=60)
    assert asked(reporters[0]) and asked(reporters[-1])
"""


def test_the_command_is_heard_however_many_ranks_were_started() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
