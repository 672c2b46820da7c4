"""Faults inside any process of a command, and a trace of its steps, without a hook in the product.

CHAOS_FAULTS   JSON, a list of {"at": "module:name.of.function", "call": n, "do": kind, "mark": path}: the n-th call,
               from 1 in each process, that finds no file ``mark`` makes it and does ``kind``, before the function or
               after it ("when": "after"). "fold": of this fold alone.
CHAOS_TRACE    a folder: each training appends "process step" to a file per fold, before each step
"""

import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time

FAULTS = json.loads(os.environ.get("CHAOS_FAULTS", "[]"))
TRACE = os.environ.get("CHAOS_TRACE")
LOOP, LEARNER = "melanoma_dist.train.loop", "melanoma_dist.train.learner"
here = {"fold": None}


def do(kind):
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        time.sleep(10_000)
    elif kind.startswith("signal parent "):
        os.kill(int(os.environ["CHAOS_COMMAND"]), int(kind.rpartition(" ")[2]))
    else:
        code = int(kind)
        raise OSError(code, os.strerror(code))


def once(mark):
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def sabotaged(function, fault):
    calls = [0]

    def due():
        if fault.get("fold", here["fold"]) != here["fold"]:
            return False
        calls[0] += 1
        return calls[0] >= fault["call"] and once(fault["mark"])

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        late = fault.get("when") == "after"
        hit = due()
        if hit and not late:
            do(fault["do"])
        found = function(*args, **kwargs)
        if hit and late:
            do(fault["do"])
        return found

    return wrapped


def traced(step):
    @functools.wraps(step)
    def wrapped(self, batch, number, rate):
        with open(os.path.join(TRACE, f"fold-{here['fold']}"), "a") as file:
            file.write(f"{os.getpid()} {number}\n")
        return step(self, batch, number, rate)

    return wrapped


def tells_fold(begin):
    @functools.wraps(begin)
    def wrapped(self, unit, *args, **kwargs):
        here["fold"] = unit.fold
        return begin(self, unit, *args, **kwargs)

    return wrapped


def patch(module):
    if module.__name__ == LOOP:
        module.Training.__init__ = tells_fold(module.Training.__init__)
    if module.__name__ == LEARNER and TRACE:
        module.Learner.step = traced(module.Learner.step)
    for fault in FAULTS:
        name, _, path = fault["at"].partition(":")
        if name == module.__name__:
            *outer, last = path.split(".")
            owner = functools.reduce(getattr, outer, module)
            setattr(owner, last, sabotaged(getattr(owner, last), fault))


WANTED = {LOOP, LEARNER, *(fault["at"].partition(":")[0] for fault in FAULTS)}


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
