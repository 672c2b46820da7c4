"""Measures a server under load, beside the bare ensemble in a loop, and what it survives.

    python benchmarks/serve.py --run RUN --rate --memory 10000 --hostile 1000

``--rate``: p50, p99 and images/s with 1, 8 and 64 concurrent clients, and of `Ensemble.predict` on the same prepared
images in one loop, in whole batches. ``--memory N``: resident memory of the server over N requests. ``--hostile N``:
N malformed uploads, after which the server must answer as before. ``--kill N``: kills decoders under load; no answer
may be wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import random
import re
import signal
import struct
import subprocess  # nosec B404  # for the program itself and its clients
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from melanoma_dist.app.inspection import inspect_bytes
from melanoma_dist.app.predictor import Predictor
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.inference.trained_run import open_trained_run

ROOT = Path(__file__).resolve().parents[1]
Answers = dict[int, dict[str, object]]


def lesions(count: int) -> list[bytes]:
    images = []
    for number in range(count):
        rng, buffer = np.random.default_rng([5, number]), io.BytesIO()
        Image.fromarray(photograph(rng, draw_lesion(rng, "NV" if number % 2 else "MEL"))).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    return images


def start(run: Path, flags: list[str]) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, str(ROOT / "launch.py"), "serve", str(run), "--port", "0", "--no-audit", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=environment)  # noqa: S603  # nosec B603
    for line in process.stdout or ():
        if match := re.search(r"listening on (http://\S+)", line):
            return process, match[1]
    raise SystemExit("the server did not start")


async def ask(client: httpx.AsyncClient, image: bytes) -> httpx.Response:
    return await client.post("/v1/predict", files={"images": ("a.jpg", image, "image/jpeg")})


async def load(address: str, images: list[bytes], clients: int, requests: int) -> tuple[list[float], float, Answers]:
    """Seconds of each request, images/s, and the answers by image. Raises for any answer that is no success."""
    seconds: list[float] = []
    answers: Answers = {}
    numbers = iter(range(requests))
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:

        async def one() -> None:
            for number in numbers:
                at = number % len(images)
                begin = time.perf_counter()
                response = await ask(client, images[at])
                seconds.append(time.perf_counter() - begin)
                response.raise_for_status()
                answers[at] = response.json()["images"][0]

        begin = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        return seconds, requests / (time.perf_counter() - begin), answers


def measure_rate(run: Path, address: str, images: list[bytes], requests: int, threads: int, tta: int | None) -> None:
    predictor = Predictor.load(open_trained_run(run), None, 0, threads, tta)
    photos = [inspect_bytes(str(at), image, predictor.run.image_size) for at, image in enumerate(images)]
    for clients in (1, 8, 64):
        asyncio.run(load(address, images, clients, clients))  # warm connections
        count = max(requests // (4 if clients == 1 else 1), clients)
        # In turns, so that other programs on the machine disturb both alike.
        seconds, rate, _ = asyncio.run(load(address, images, clients, count))
        size = min(clients, 32)
        begin = time.perf_counter()
        for first in range(0, count, size):
            predictor.predict([photos[(first + each) % len(photos)] for each in range(size)], neighbours=5)
        bare = -(-count // size) * size / (time.perf_counter() - begin)
        p50, p99 = np.percentile(seconds, [50, 99])
        print(
            f"{clients} clients: p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms, {rate:.2f} images/s; bare ensemble "
            f"in batches of {size}: {bare:.2f} images/s; {rate / bare:.0%}", flush=True,
        )  # fmt: skip


def resident(process: subprocess.Popen[str]) -> list[int]:
    """MB of the server and of its other processes."""
    server = psutil.Process(process.pid)
    return [each.memory_info().rss // 10**6 for each in (server, *server.children(recursive=True))]


def measure_memory(process: subprocess.Popen[str], address: str, images: list[bytes], requests: int) -> None:
    steps = 10
    for step in range(steps + 1):
        megabytes = resident(process)
        print(f"after {step * requests // steps} requests: {sum(megabytes)} MB ({megabytes})", flush=True)
        if step < steps:
            asyncio.run(load(address, images, 8, requests // steps))


def bomb(rng: random.Random) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = rng.choice([7_900, 30_000, 65_000, 2**31 - 1])
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(5_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def hostile_file(rng: random.Random, image: bytes) -> bytes:
    """A file that is no whole image."""
    kinds: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: bytes(rng.randrange(1, 5000)),
        lambda: image[: rng.randrange(len(image))],
        lambda: bomb(rng),
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n{} loop\n",
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        lambda: b"<!doctype html><script>alert(1)</script>",
        lambda: rng.randbytes(rng.randrange(3000)),
        lambda: b"\xff\xd8\xff" + rng.randbytes(500),
        lambda: b"\x89PNG\r\n\x1a\n" + rng.randbytes(500),
        lambda: b"II*\x00\x08\x00\x00\x00" + rng.randbytes(500),
    ]
    return rng.choice(kinds)()


def hostile_request(rng: random.Random, image: bytes) -> tuple[bytes, str]:
    """A body and its content type."""
    name = rng.choice(["a.jpg", "../../etc/passwd", "/etc/shadow", "a\\..\\b", "%00", "x" * 3000, "é", '"; x="'])
    head = f'--b\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode()
    body = head + hostile_file(rng, image) + b"\r\n--b--\r\n"
    if rng.random() < 0.4:  # a corrupt form
        start = rng.randrange(len(body))
        body = body[:start] + rng.randbytes(rng.randrange(9)) + body[start + rng.randrange(60) :]
    return body, rng.choice(["multipart/form-data; boundary=b"] * 8 + ["multipart/form-data", "image/jpeg", "x" * 200])


async def attack(address: str, image: bytes, count: int, seed: int) -> tuple[Counter[int], Counter[str]]:
    outcomes: list[str] = []
    rng, statuses = random.Random(seed), Counter[int]()  # noqa: S311  # nosec B311  # no secret
    requests = iter([hostile_request(rng, image) for _ in range(count)])
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:

        async def one() -> None:
            for body, kind in requests:
                response = await client.post("/v1/predict", content=body, headers={"Content-Type": kind})
                statuses[response.status_code] += 1
                if response.status_code == 200:
                    images = response.json()["images"]
                    outcomes.extend("unreadable" if each["error"] else "predicted" for each in images)

        await asyncio.gather(*(one() for _ in range(8)))
        for size in (100_000_000, 100_000_000):
            try:
                response = await client.post("/v1/predict", files={"images": ("a.jpg", bytes(size), "image/jpeg")})
                statuses[response.status_code] += 1
            except httpx.TransportError:  # the server closed before the client had sent everything
                statuses[413] += 1
    return statuses, Counter(outcomes)


def survive(process: subprocess.Popen[str], address: str, images: list[bytes], count: int) -> None:
    _, _, before = asyncio.run(load(address, images[:8], 4, 8))
    statuses, outcomes = asyncio.run(attack(address, images[0], count, seed=1))
    print(f"{count} malformed uploads and two of 100 MB: statuses {dict(sorted(statuses.items()))}")
    print(
        f"of files that arrived: {dict(outcomes)} (an image that only lacks its last bytes is predicted, as by predict)"
    )
    compare(address, images, before)
    print(f"afterwards: the same answers, {sum(resident(process))} MB")


def kill_decoders(process: subprocess.Popen[str], address: str, images: list[bytes], kills: int) -> None:
    """Kill decoders under load. An image whose decoder died has an error; every other answer is right."""
    _, _, before = asyncio.run(load(address, images[:8], 4, 8))

    async def killer() -> None:
        for _ in range(kills):
            await asyncio.sleep(0.5)
            decoders = [each for each in psutil.Process(process.pid).children(recursive=True) if each.num_threads() < 3]
            os.kill(max(decoders, key=lambda each: each.create_time()).pid, signal.SIGKILL)

    async def both() -> list[dict[str, object]]:
        done, answers = asyncio.create_task(killer()), []
        async with httpx.AsyncClient(base_url=address, timeout=120) as client:

            async def one(at: int) -> None:
                while not done.done():
                    response = await ask(client, images[at])
                    response.raise_for_status()
                    answers.append({"at": at, **response.json()["images"][0]})

            await asyncio.gather(*(one(at) for at in range(8)), done)
        return answers

    answers = asyncio.run(both())
    errors = [answer["error"] for answer in answers if answer["error"]]
    wrong = sum(not answer["error"] and gap(answer, before[int(str(answer["at"]))]) > 1e-6 for answer in answers)
    print(f"{kills} decoders killed under load: {len(answers)} answers, {wrong} wrong, errors {dict(Counter(errors))}")


def gap(one: dict[str, object], other: dict[str, object]) -> float:
    return abs(float(str(one["MEL"])) - float(str(other["MEL"])))


def compare(address: str, images: list[bytes], before: Answers) -> None:
    _, _, after = asyncio.run(load(address, images[:8], 4, 8))
    gaps = [gap(after[at], before[at]) for at in before]
    if max(gaps) > 1e-6:
        raise SystemExit(f"answers changed by {max(gaps)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rate", action="store_true")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--hostile", type=int, default=0)
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--tta", type=int)
    arguments = parser.parse_args()
    flags = ["--decode-threads", str(arguments.threads)]
    if arguments.tta:
        flags += ["--tta", str(arguments.tta)]
    process, address = start(arguments.run, flags)
    try:
        images = lesions(64)
        if arguments.hostile:
            survive(process, address, images, arguments.hostile)
        if arguments.kill:
            kill_decoders(process, address, images, arguments.kill)
        if arguments.rate:
            measure_rate(arguments.run, address, images, arguments.requests, arguments.threads, arguments.tta)
        if arguments.memory:
            measure_memory(process, address, images, arguments.memory)
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"exit code after SIGTERM: {process.wait(60)}")


if __name__ == "__main__":
    main()
