"""Decodes images in processes with limits of time and memory: a crash of a decoder is one image's error.

The processes come from a fork server that has imported the decoders. They leave no core dump, which would hold images.
"""

from __future__ import annotations

import queue
import resource
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from melanoma_dist.app.fork_server import ForkServer
from melanoma_dist.app.inspection import InspectedPhoto, inspect_bytes, missing, unreadable
from melanoma_dist.storage.image_error import ImageError
from melanoma_dist.storage.images import MAX_BYTES, MAX_PIXELS, PHOTOGRAPHS, open_image
from melanoma_dist.storage.untrusted import read_bytes

_MEMORY = 4 * 2**30  # bytes of address space of a process
_START_S = 300.0  # on a machine with much else to do, imports take minutes
_AHEAD = 32  # files per process that are decoded before they are asked for
_SERVER = ForkServer("melanoma_dist.app.decoders:decode_images")


def preload_decoders() -> None:
    """Let the fork server import the decoders while this process does something else."""
    _SERVER.ensure_running()


class Decoders:
    """Processes that prepare images for the models. A context manager, which ends them."""

    def __init__(self, count: int, image_size: int, seconds: float, max_pixels: int = MAX_PIXELS) -> None:
        """``image_size``: see `TrainedRun.image_size`. ``seconds``: the most for one image."""
        self._processes = [_Decoder(image_size, max_pixels, seconds) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count, "decoder")  # each waits for one process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, image_id: str, data: bytes) -> Future[InspectedPhoto]:
        """Start to prepare an image. The future never raises for bad ones, not even for those that kill a decoder."""
        return self._threads.submit(self._inspect, image_id, data)

    def inspect_files(self, files: Sequence[Path]) -> Iterator[InspectedPhoto]:
        """Prepare files and yield them in order. A file that cannot be read is an image with its reason."""
        waiting: deque[Future[InspectedPhoto]] = deque()
        for path in files:
            waiting.append(self._threads.submit(self._inspect_file, path))
            if len(waiting) >= _AHEAD * len(self._processes):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _inspect_file(self, path: Path) -> InspectedPhoto:
        try:
            data = read_bytes(path, MAX_BYTES)
        except (OSError, ValueError) as error:
            return missing(path, error)
        return self._inspect(str(path), data)

    def _inspect(self, image_id: str, data: bytes) -> InspectedPhoto:
        process = self._idle.get()  # there are as many threads as processes
        try:
            return process.inspect(image_id, data)
        finally:
            self._idle.put(process)

    def pids(self) -> list[int]:
        """The processes that live now."""
        return [pid for process in self._processes if (pid := process.pid) is not None]

    def close(self) -> None:
        """End all processes at once. Images that wait are given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()  # frees a thread that waits for it
        self._threads.shutdown()
        for process in self._processes:
            process.end()


class _Decoder:
    def __init__(self, image_size: int, max_pixels: int, seconds: float) -> None:
        self._limits, self._seconds = (image_size, max_pixels), seconds
        self._start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def inspect(self, image_id: str, data: bytes) -> InspectedPhoto:
        try:
            if not self._process.alive():
                self._process.end()
                self._start()
            return self._ask(image_id, data)
        except TimeoutError:
            text = f"decoding it took more than {self._seconds:g} s"
            reason = ImageError("decoder_time", text, seconds=self._seconds)
        except (EOFError, OSError):  # also of a new process that is killed while it starts
            reason = ImageError("decoder_crash", "its decoder crashed")
        self.end()  # the next image starts another one
        return unreadable(image_id, data, reason)

    def _ask(self, image_id: str, data: bytes) -> InspectedPhoto:
        pipe = self._process.pipe
        pipe.send((image_id, data))
        if not pipe.poll(self._seconds):
            raise TimeoutError
        result: InspectedPhoto = pipe.recv()
        return result

    def _start(self) -> None:
        self._process = _SERVER.fork()
        self._process.wait_until_ready(_START_S)
        self._process.pipe.send(self._limits)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.end()


def decode_images(pipe: Connection) -> None:
    """Answer images until the program closes the pipe or ends. First come the image size and the most pixels."""
    warnings.simplefilter("ignore")  # Pillow's, of corrupt metadata; the answer says what is wrong with a file
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    image_size, max_pixels = pipe.recv()
    while True:
        image_id, data = pipe.recv()
        pipe.send(_inspect(image_id, data, image_size, max_pixels))


def _inspect(image_id: str, data: bytes, image_size: int, max_pixels: int) -> InspectedPhoto:
    with suppress(Exception):  # the inspection describes what is wrong with the file
        with open_image(data, PHOTOGRAPHS) as image:
            pixels = image.width * image.height
        if pixels > max_pixels:
            text = f"it has {pixels:,} pixels, more than the {max_pixels:,} of this server"
            return unreadable(image_id, data, ImageError("server_pixels", text, pixels=pixels, most=max_pixels))
    return inspect_bytes(image_id, data, image_size)
