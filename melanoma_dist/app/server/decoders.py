"""Decodes uploads in processes with limits of time and memory: a crash of a decoder is one image's error.

The processes come from a fork server that has imported the decoders, so that a new one starts in milliseconds. They
leave no core dump, which would hold images.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import resource
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

from melanoma_dist.app.inspection import InspectedPhoto, inspect_bytes, unreadable
from melanoma_dist.storage.images import PHOTOGRAPHS, open_image

_MEMORY = 4 * 2**30  # bytes of address space of a process
_START_S = 60.0
_PRELOAD = ["melanoma_dist.app.inspection", "melanoma_dist.app.server.decoders"]
_READY = b"ready"


class Decoders:
    """Processes that prepare images for the models."""

    def __init__(self, count: int, image_size: int, max_pixels: int, seconds: float) -> None:
        """``image_size``: see `TrainedRun.image_size`. ``seconds``: the most for one image."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        self._processes = [_Decoder(context, image_size, max_pixels, seconds) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count, "decoder")  # each waits for one process

    async def inspect(self, image_id: str, data: bytes) -> InspectedPhoto:
        """Prepare an image as `predict` does. Never raises for bad images, not even for those that kill a decoder."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._inspect, image_id, data)

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
        """End all processes."""
        self._threads.shutdown()
        for process in self._processes:
            process.end()


class _Decoder:
    def __init__(self, context: ForkServerContext, image_size: int, max_pixels: int, seconds: float) -> None:
        self._context, self._limits, self._seconds = context, (image_size, max_pixels), seconds
        self._start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def inspect(self, image_id: str, data: bytes) -> InspectedPhoto:
        try:
            if not self._process.is_alive():
                self._start()
            return self._ask(image_id, data)
        except TimeoutError:
            reason = f"decoding it took more than {self._seconds:g} s"
        except (EOFError, OSError):  # also of a new process that is killed while it starts
            reason = "its decoder crashed"
        self.end()  # the next image starts another one
        return unreadable(image_id, data, reason)

    def _ask(self, image_id: str, data: bytes) -> InspectedPhoto:
        self._pipe.send((image_id, data))
        if not self._pipe.poll(self._seconds):
            raise TimeoutError
        result: InspectedPhoto = self._pipe.recv()
        return result

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_decode, args=(theirs, *self._limits), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START_S) or self._pipe.recv_bytes() != _READY:
            raise OSError("a process that decodes images did not start")

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _decode(pipe: Connection, image_size: int, max_pixels: int) -> None:
    """Answer images until the server closes the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server drains
    warnings.simplefilter("ignore")  # Pillow's, of corrupt metadata; the answer says what is wrong with a file
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    pipe.send_bytes(_READY)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            image_id, data = pipe.recv()
            pipe.send(_inspect(image_id, data, image_size, max_pixels))


def _inspect(image_id: str, data: bytes, image_size: int, max_pixels: int) -> InspectedPhoto:
    with suppress(Exception):  # the inspection describes what is wrong with the file
        with open_image(data, PHOTOGRAPHS) as image:
            pixels = image.width * image.height
        if pixels > max_pixels:
            return unreadable(image_id, data, f"it has {pixels:,} pixels, more than the {max_pixels:,} of this server")
    try:
        return inspect_bytes(image_id, data, image_size)
    except MemoryError:
        return unreadable(image_id, data, "decoding it took too much memory")
