"""Communication over all GPUs: sums, bandwidth, gradients of DistributedDataParallel against one process."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from melanoma_dist.input import stream
from on_gpu.settings import Row, Settings
from on_gpu.speed import wait


def nccl(settings: Settings) -> Iterator[Row]:
    """Collectives over one rank per GPU. Without a GPU: two ranks and gloo."""
    ranks = torch.cuda.device_count() if settings.device == "cuda" else 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        spawn(_rank, (ranks, port, settings.device, str(answer)), nprocs=ranks)
        for figure, value, remark in json.loads(answer.read_text()):
            yield Row(figure, value, remark)


def _rank(rank: int, ranks: int, port: int, kind: str, answer: str) -> None:
    """Measure on one rank; the first one writes the rows."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    try:
        rows = [
            ("all-reduce is the sum", _sum_is_right(rank, ranks, device), f"{ranks} ranks, {backend}"),
            ("all-reduce bandwidth", _bandwidth(ranks, device), "64 MB float32; bus bandwidth as nccl-tests has it"),
            ("DDP gradient against one process", _ddp_difference(rank, ranks, device), "relative; below 1e-4 is equal"),
        ]
    finally:
        dist.destroy_process_group()
    if rank == 0:
        Path(answer).write_text(json.dumps(rows))


def _sum_is_right(rank: int, ranks: int, device: torch.device) -> str:
    values = torch.arange(1000, device=device) + rank
    dist.all_reduce(values)
    expected = ranks * torch.arange(1000) + ranks * (ranks - 1) // 2
    return "yes" if torch.equal(values.cpu(), expected) else "NO"


def _bandwidth(ranks: int, device: torch.device) -> str:
    values = torch.zeros(16 * 2**20, device=device)
    for _ in range(3):
        dist.all_reduce(values)
    wait(device)
    start, repeats = time.perf_counter(), 10
    for _ in range(repeats):
        dist.all_reduce(values)
    wait(device)
    seconds = (time.perf_counter() - start) / repeats
    bus = values.numel() * 4 * 2 * (ranks - 1) / ranks / seconds / 1e9
    return f"{1000 * seconds:.2f} ms, bus {bus:.1f} GB/s"


def _ddp_difference(rank: int, ranks: int, device: torch.device) -> str:
    """Gradients of shares of a batch, averaged by DDP, against those of the whole batch; no batch norm, float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4)).double().to(device)
    images = torch.randn(4 * ranks, 3, 16, 16, dtype=torch.float64).to(device)
    model(images).square().mean().backward()
    alone = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad()
    parallel = DistributedDataParallel(model, device_ids=[rank] if device.type == "cuda" else None)
    parallel(images[stream.rank_slice(rank, ranks)]).square().mean().backward()
    averaged = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    return f"{((averaged - alone).abs().max() / alone.abs().max()).item():.1e}"
