"""Faults inside any process of a command, and a trace of its steps, without a hook in the product.

CHAOS_FAULTS   JSON, a list of {"at": "module:name.of.function", "call": n, "do": kind, "mark": path}: the n-th call,
               from 1 in each process, that finds no file ``mark`` makes it and does ``kind``, before the function or
               after it ("when": "after"). "fold", "rank": of this fold, or this rank, alone. Kinds: "kill", "hang",
               an errno, "signal command N M" (M follows N), "signal group N" (to the command and what it started): both
               make the call seconds long, so that they are heard before a small training is over, or endless
               with " hang" at the end;
               "signal soon N" (to the command, from a thread), "memory" (a GPU that has none left), "nan" (into the
               images of a step), "spoil BYTE LENGTH FILE" (zeros into a file)
CHAOS_TRACE    a folder: each training appends "process step seconds" to RUN/fold-N, before each step, by the machine's
               monotonic clock; and each process keeps "phase fold" in a file phase-PID: what it does now

Ray gives its own processes 30 s to start, too short on a machine that does much else; here it waits a little longer.
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
RAY, RAY_STARTS_S = "ray._private.services", 60
LOOP, LEARNER = "melanoma_dist.train.loop", "melanoma_dist.train.step"
PHASES = {
    "melanoma_dist.run:train": "start",
    "melanoma_dist.distributed.units:train_units": "work",
    "melanoma_dist.evaluate.finalize:finalize": "end",
    f"{LOOP}:FoldTrainer.__init__": "start",
    f"{LOOP}:FoldTrainer._resume": "start",
    f"{LOOP}:FoldTrainer._train": "step",
    f"{LOOP}:FoldTrainer._judge": "validation",
    f"{LOOP}:FoldTrainer._finish": "end",
    f"{LEARNER}:TrainStep.predict": "validation",
    "melanoma_dist.storage.atomic:write_folder": "checkpoint",
}
INNERMOST = ("checkpoint", "validation", "step", "end", "work", "start")
here = {"run": None, "fold": None, "rank": None}
SOON_S, HANGS_S = 1.0, 10_000
HEARD_S = 5.0  # what a command that shares two cores with its ranks may take


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
            time.sleep(HANGS_S if kind.endswith("hang") else HEARD_S)
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
        time.sleep(HEARD_S if following else 0)
        (os.killpg if target == "group" else os.kill)(int(os.environ["CHAOS_COMMAND"]), int(number))


def once(mark):
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def sabotaged(function, fault):
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
        found = function(*args, **kwargs)
        if hit and late:
            do(fault["do"], args)
        return found

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
    """What this process does now, kept in a file that outlives it."""

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


def patient(get_node):
    @functools.wraps(get_node)
    def wrapped(*args):
        limit = time.monotonic() + RAY_STARTS_S
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.5)

    return wrapped


def tells_place(begin):
    @functools.wraps(begin)
    def wrapped(self, unit, world, *args, **kwargs):
        here.update(run=unit.run.name, fold=unit.fold, rank=world.rank)
        return begin(self, unit, world, *args, **kwargs)

    return wrapped


def replace(module, path, wrap, *args):
    *outer, last = path.split(".")
    owner = functools.reduce(getattr, outer, module)
    setattr(owner, last, wrap(getattr(owner, last), *args))


def patch(module):
    for at, phase in PHASES.items() if TRACE else ():
        name, _, path = at.partition(":")
        if name == module.__name__:
            replace(module, path, phased, phase)
    if module.__name__ == RAY:
        module.get_node = patient(module.get_node)
    if module.__name__ == LOOP:
        module.FoldTrainer.__init__ = tells_place(module.FoldTrainer.__init__)
    if module.__name__ == LEARNER and TRACE:
        module.TrainStep.step = traced(module.TrainStep.step)
    for fault in FAULTS:
        name, _, path = fault["at"].partition(":")
        if name == module.__name__:
            replace(module, path, sabotaged, fault)


current = Phase()
PLACES = [*PHASES, *(fault["at"] for fault in FAULTS)]
WANTED = {RAY, LOOP, LEARNER, *(at.partition(":")[0] for at in PLACES)}


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in WANTED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


if FAULTS or TRACE:
    sys.meta_path.insert(0, Finder())
