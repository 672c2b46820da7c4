"""Faults inside any process of a command, and a trace of its steps, without a hook in the product.

CHAOS_FAULTS   JSON, a list of {"at": "module:name.of.function", "call": n, "do": kind, "mark": path}. The n-th call in
               a process, counted from 1, does ``kind`` unless the file ``mark`` exists, and creates that file.
               Options: "when": "after" (the function instead of before it), "fold" and "rank" (only in these). Kinds:
               "kill", "hang", an errno,
               "signal command N M" (N, then M, to the command), "signal group N" (to the command and its children):
               the call then takes seconds, so that a small training does not end first; with " hang" it never ends,
               "signal soon N" (to the command, from a thread), "memory" (CUDA out of memory), "nan" (into the images
               of a step), "spoil BYTE LENGTH FILE" (zeros into a file)
CHAOS_TRACE    a folder. Before each step, a training appends "process step seconds" to RUN/fold-N, by the machine's
               monotonic clock. Each process writes its current "phase fold" to a file phase-PID

A named function must exist: otherwise the process prints its name and exits with code 70 (EX_SOFTWARE), so that a
renamed function cannot turn a fault into a test of nothing.
"""

import collections
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import threading
import time

FAULTS = json.loads(os.environ.get("CHAOS_FAULTS", "[]"))
TRACE = os.environ.get("CHAOS_TRACE")
LOOP, STEP = "melanoma_dist.train.loop", "melanoma_dist.train.step"
PHASES = {
    "melanoma_dist.run:train": "start",
    "melanoma_dist.distributed.units:train_units": "work",
    "melanoma_dist.evaluate.finalize:finalize": "end",
    f"{LOOP}:FoldTrainer.__init__": "start",
    f"{LOOP}:FoldTrainer._resume": "start",
    f"{LOOP}:FoldTrainer._train": "step",
    f"{LOOP}:FoldTrainer._validate": "validation",
    f"{LOOP}:FoldTrainer._finish": "end",
    f"{STEP}:TrainStep.predict": "validation",
    "melanoma_dist.storage.atomic:write_folder": "checkpoint",
}
INNERMOST = ("checkpoint", "validation", "step", "end", "work", "start")
here = {"run": None, "fold": None, "rank": None}
SOON_S, HANGS_S = 1.0, 10_000
DELIVERY_S = 5.0  # in which a command that shares two cores with its ranks handles a signal


def do(kind, args):
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        time.sleep(HANGS_S)
    elif kind.startswith("signal "):
        _, target, *numbers = kind.removesuffix(" hang").split()
        if target == "soon":
            threading.Timer(SOON_S, send, [target, *numbers]).start()
        else:
            send(target, *numbers)
            time.sleep(HANGS_S if kind.endswith("hang") else DELIVERY_S)
    elif kind == "memory":
        from torch import OutOfMemoryError

        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    elif kind == "nan":
        args[1].images.fill_(float("nan"))
    elif kind.startswith("spoil "):
        _, byte, length, path = kind.split()
        with open(path, "r+b") as file:
            file.seek(int(byte))
            file.write(bytes(int(length)))
    else:
        code = int(kind)
        raise OSError(code, os.strerror(code))


def send(target, *numbers):
    for following, number in enumerate(numbers):
        time.sleep(DELIVERY_S if following else 0)
        (os.killpg if target == "group" else os.kill)(int(os.environ["CHAOS_COMMAND"]), int(number))


def once(mark):
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def with_fault(function, fault):
    calls = [0]

    def due():
        if any(fault.get(key, value) != value for key, value in here.items()):
            return False
        calls[0] += 1
        return calls[0] >= fault["call"] and once(fault["mark"])

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        late = fault.get("when") == "after"
        hit = due()
        if hit and not late:
            do(fault["do"], args)
        result = function(*args, **kwargs)
        if hit and late:
            do(fault["do"], args)
        return result

    return wrapped


def traced(step):
    @functools.wraps(step)
    def wrapped(self, batch, number, rate):
        if here["rank"] == 0:
            os.makedirs(os.path.join(TRACE, here["run"]), exist_ok=True)
            with open(os.path.join(TRACE, here["run"], f"fold-{here['fold']}"), "a") as file:
                file.write(f"{os.getpid()} {number} {time.monotonic()}\n")
        return step(self, batch, number, rate)

    return wrapped


class Phase:
    """What this process does now, in a file that outlives it."""

    def __init__(self):
        self.within, self.lock, self.file = collections.Counter(), threading.Lock(), None

    def change(self, phase, by):
        with self.lock:
            self.within[phase] += by
            now = next((name for name in INNERMOST if self.within[name]), "between")
            if self.file is None:
                self.file = os.open(os.path.join(TRACE, f"phase-{os.getpid()}"), os.O_CREAT | os.O_WRONLY, 0o600)
            os.pwrite(self.file, f"{now} {here['fold']}".ljust(20).encode(), 0)


def phased(function, phase):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        current.change(phase, 1)
        try:
            return function(*args, **kwargs)
        finally:
            current.change(phase, -1)

    return wrapped


def recording_place(init):
    @functools.wraps(init)
    def wrapped(self, unit, world, *args, **kwargs):
        here.update(run=unit.run.name, fold=unit.fold, rank=world.rank)
        return init(self, unit, world, *args, **kwargs)

    return wrapped


def fail(why):
    print(f"chaos: {why}: renamed?", file=sys.stderr, flush=True)
    os._exit(70)


def replace(module, path, wrap, *args):
    *outer, last = path.split(".")
    try:
        owner = functools.reduce(getattr, outer, module)
        function = getattr(owner, last)
    except AttributeError:
        fail(f"{module.__name__} has no {path}")
    setattr(owner, last, wrap(function, *args))


def patch(module):
    for at, phase in PHASES.items() if TRACE else ():
        name, _, path = at.partition(":")
        if name == module.__name__:
            replace(module, path, phased, phase)
    if module.__name__ == LOOP:
        replace(module, "FoldTrainer.__init__", recording_place)
    if module.__name__ == STEP and TRACE:
        replace(module, "TrainStep.step", traced)
    for fault in FAULTS:
        name, _, path = fault["at"].partition(":")
        if name == module.__name__:
            replace(module, path, with_fault, fault)


current = Phase()
PLACES = [*PHASES, *(fault["at"] for fault in FAULTS)]
MODULES = {LOOP, STEP, *(at.partition(":")[0] for at in PLACES)}


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None:
            fail(f"there is no module {name}")
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


if FAULTS or TRACE:
    sys.meta_path.insert(0, Finder())
