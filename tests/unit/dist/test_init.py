from __future__ import annotations

import signal
import sys

import pytest
import ray

from melanoma_dist import terminate
from melanoma_dist.dist import cluster


def test_a_sigterm_that_ray_hears_while_it_starts_ends_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: sys.exit(signal.SIGTERM))
    terminate.forget()
    with pytest.raises(KeyboardInterrupt):
        cluster._init()
    assert terminate.exit_code() == terminate.TERMINATED
    terminate.forget()
