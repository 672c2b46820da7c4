"""Real ranks on this machine: processes that meet in a gloo process group, and what they bring back.

The processes are started once and serve one test after another, for importing PyTorch takes longer than all they do;
the process group is a new one each time.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from melanoma_dist.world import World

MOST = 3
LIMIT_S = 120.0
_STARTED: list[tuple[Any, Connection]] = []


def on_ranks(
    size: int, work: Callable[..., Any], *arguments: Any, limit_s: float = LIMIT_S, group_s: float = 1800
) -> list[Any]:
    """What ``work(world, *arguments)`` returns, or the exception it raises, on each of ``size`` ranks.

    ``work`` is a function of a module. TimeoutError when a rank is still at it after ``limit_s``; ranks wait for each
    other for ``group_s``.
    """
    _start()
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    taken = _STARTED[:size]
    for rank, (_, pipe) in enumerate(taken):
        pipe.send((World(rank, size), port, group_s, work, arguments))
    deadline = time.monotonic() + limit_s
    try:
        return [_answer(rank, pipe, deadline, limit_s) for rank, (_, pipe) in enumerate(taken)]
    except (TimeoutError, EOFError):
        stop()
        raise


def stop() -> None:
    """End the processes."""
    while _STARTED:
        process, _ = _STARTED.pop()
        process.kill()
        process.join()


def _answer(rank: int, pipe: Connection, deadline: float, limit_s: float) -> Any:
    if not pipe.poll(max(0.0, deadline - time.monotonic())):
        raise TimeoutError(f"rank {rank} was still at it after {limit_s} s")
    return pipe.recv()


def _start() -> None:
    if _STARTED:
        return
    # Forked from a process that has imported everything and done nothing else.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.jobs"])
    for _ in range(MOST):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        _STARTED.append((process, ours))
    for process, pipe in _STARTED:
        if not pipe.poll(LIMIT_S):
            raise TimeoutError(f"{process} did not start")
        pipe.recv()


def _serve(pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    from melanoma_dist.train.device import release

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    pipe.send("ready")
    while True:
        world, port, group_s, work, arguments = pipe.recv()
        meeting: dict[str, Any] = {"init_method": f"tcp://127.0.0.1:{port}", "timeout": timedelta(seconds=group_s)}
        dist.init_process_group("gloo", rank=world.rank, world_size=world.size, **meeting)
        try:
            result = work(world, *arguments)
        except Exception as error:
            traceback.print_exc()
            result = error
        dist.destroy_process_group()
        release(None)  # idle threads of the graphs would slow all later tests
        pipe.send(result)
