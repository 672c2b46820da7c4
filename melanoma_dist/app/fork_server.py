"""Starts processes by forking a small one that has imported what they need: a new one takes milliseconds.

`multiprocessing` has such a server too. Its processes import the script that runs again, though: slow where that script
loads much, as in a replica of Ray Serve, and wrong where it has no ``if __name__ == "__main__"``. These do not.
"""

from __future__ import annotations

import atexit
import importlib
import os
import resource
import signal
import socket
import subprocess  # nosec B404  # for this Python itself
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

Target = Callable[[Connection], None]

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Terminals and batch systems send these to whole groups. Servers and processes end with their program instead."""
_CODE = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({descriptor}, {target!r})"
_END_S = 5.0
_PAUSE_S = 0.001


class ForkServer:
    """Forks processes that run one function. Any thread may use it."""

    def __init__(self, target: str) -> None:
        """``target``: ``module:function``, which gets a pipe to the process that asked, and ends when that closes."""
        self._target = target
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def ensure_running(self) -> None:
        """Start the server unless it runs, without waiting for its imports."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def fork(self) -> ForkedProcess:
        """Start a process. Raises OSError if the server cannot."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._send(theirs)
            except OSError:  # the server was killed
                self.stop()
                self._send(theirs)
        return ForkedProcess(ours)

    def stop(self) -> None:
        """End the server. Its processes go on until their pipes close."""
        with self._lock:
            if self._process is not None and self._control is not None:
                self._control.close()
                self._process.kill()
                self._process.wait()
            self._process = self._control = None

    def _send(self, pipe: socket.socket) -> None:
        self.ensure_running()
        with self._lock:
            if self._control is None:
                raise OSError("the server of processes was stopped")
            socket.send_fds(self._control, [b"f"], [pipe.fileno()])

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = _CODE.format(path=sys.path, module=__name__, descriptor=theirs.fileno(), target=self._target)
            command = [sys.executable, "-c", code]
            self._process = subprocess.Popen(  # noqa: S603  # nosec B603  # this Python
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        if self._control is None:
            atexit.register(self.stop)
        else:
            self._control.close()
        self._control = ours


class ForkedProcess:
    """A process and the pipe to it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.pipe = Connection(os.dup(channel.fileno()))
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """None before it is ready."""
        return self._pid

    def wait_until_ready(self, seconds: float) -> None:
        """Raises OSError if it is not ready in time, or ends before."""
        try:
            if not self.pipe.poll(seconds):
                raise OSError("a process did not start in time")
            self._pid = int(self.pipe.recv_bytes())
        except EOFError as error:
            raise OSError("a process ended while it started") from error

    def alive(self) -> bool:
        """Whether it still holds its end of the pipe. False after `end`."""
        try:
            return self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def kill(self) -> None:
        """Kill it. Frees a thread that waits at the pipe."""
        # The pid of a process that ended may be another one's by now.
        if self._pid is not None and self.alive():
            with suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, wait until it is gone, and close the pipe. Repeated calls do nothing."""
        self.kill()
        deadline = time.monotonic() + _END_S
        while self._exists() and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        self._pid = None
        self.pipe.close()
        self._channel.close()

    def _exists(self) -> bool:
        if self._pid is None:
            return False
        try:
            os.kill(self._pid, 0)
        except OSError:
            return False
        return True


def serve(descriptor: int, target: str) -> None:
    """Fork a process for each pipe that arrives at a socket, until the program at its other end closes it or ends."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets processes that ended
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # for all: a core dump would hold what a process was given
    module, _, name = target.partition(":")
    function: Target = getattr(importlib.import_module(module), name)
    with socket.socket(fileno=descriptor) as control:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                return
            if os.fork() == 0:
                control.close()
                _run(function, descriptors[0])
            os.close(descriptors[0])


def _run(function: Target, descriptor: int) -> None:
    """Run the function in a process that was just forked, and end it."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        pipe = Connection(descriptor)
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the program ended
            pipe.send_bytes(str(os.getpid()).encode())
            function(pipe)
        code = 0
    finally:
        os._exit(code)  # nothing of the server may run here
