"""Whether a training that was left in the middle of an epoch, twice, ends with the bytes of one that never was."""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from melanoma_dist.artifacts.epochs import read_epochs
from melanoma_dist.train.events import Event, Paused
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.unit import Unit
from on_gpu.learning import as_in_a_run
from on_gpu.settings import Row, Settings, claim
from on_gpu.units import unit_in
from tests.chaos.outcome import of_unit

_CASES = (("resnet10t", 160, False), ("densenet201", 224, False), ("resnet10t", 160, True))  # side; compiled?
_STEPS_BETWEEN = (4, 10)  # after so many it is left, and after so many more again: within an epoch
_LOOSE = re.compile(r"(\S+) does not have a deterministic implementation")


def resume(settings: Settings) -> Iterator[Row]:
    """Two undisturbed trainings, and one left twice, without Ray: mixed precision, mixed decoding; compiled too."""
    for backbone, size, compiled in _CASES if settings.gpu is not None else [("test_resnet", 64, False)]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield from _compared(backbone, size, compiled, Path(folder), settings)
        if loose := sorted({match[1] for each in heard if (match := _LOOSE.match(str(each.message)))}):
            yield Row(f"{backbone}, kernels without a repeatable form", str(len(loose)), ", ".join(loose))


def replayed(settings: Settings) -> Iterator[Row]:
    """A unit whose steps are replayed, the same left twice, and one that launches each kernel: all the same bytes?"""
    backbone, size = ("resnet10t", 160) if settings.gpu is not None else ("test_resnet", 64)
    with tempfile.TemporaryDirectory() as folder:
        whole, left, computed = (
            unit_in(
                Path(folder, name), settings, model__backbone=backbone, input__image_size=size, data__folds=3,
                schedule__epochs=2, optimizer__freeze_epochs=1, optimizer__ema_decay=0.9, hardware__cuda_graph=choice,
            )
            for name, choice in (("whole", "auto"), ("left", "auto"), ("computed", "off"))
        )  # fmt: skip
        for unit in (whole, computed):
            _train(unit, settings)
        where = [_train(left, settings, steps) for steps in _STEPS_BETWEEN]
        _train(left, settings)
        graphs = {epoch.cuda_graph for epoch in read_epochs(whole.folder)}
        if settings.gpu is not None:
            yield claim(graphs == {True}, f"{backbone}, epochs replayed", "all" if graphs == {True} else "NOT all")
        for other, how in ((left, f"left at {' and '.join(where)}"), (computed, "kernels one by one")):
            files = [one.model.read_bytes() + one.predictions.read_bytes() for one in (whole, other)]
            text = "the same bytes" if files[0] == files[1] else "other bytes"
            yield claim(files[0] == files[1], f"{backbone}, weights and predictions, {how}", text)


def _compared(backbone: str, size: int, compiled: bool, place: Path, settings: Settings) -> Iterator[Row]:
    def unit(name: str) -> Unit:
        return unit_in(
            place / name, settings, model__backbone=backbone, input__image_size=size, data__folds=3, schedule__epochs=2,
            hardware__compile=compiled,
        )  # fmt: skip

    start = time.monotonic()
    one, other, left = unit("one"), unit("other"), unit("left")
    _train(one, settings)
    seconds = time.monotonic() - start
    _train(other, settings)
    title = f"{backbone} at {size}" + ", compiled" * compiled
    yield Row(f"{title}, two undisturbed", compare_units(one, other), f"{seconds:.0f} s each")
    where = [_train(left, settings, steps) for steps in _STEPS_BETWEEN]
    _train(left, settings)
    yield Row(f"{title}, left at {' and '.join(where)}", compare_units(one, left))


def _train(unit: Unit, settings: Settings, steps: int | None = None) -> str:
    """Train a unit to its end, or for so many steps. Returns where it was left."""
    events: list[Event] = []
    train_unit(unit, as_in_a_run(settings), events.append, _after(steps))
    return next((event.where for event in events if isinstance(event, Paused)), "the end")


def _after(steps: int | None) -> Callable[[], bool]:
    """Asked after each step: true from the ``steps``-th time on."""
    calls = 0

    def leave() -> bool:
        nonlocal calls
        calls += 1
        return steps is not None and calls >= steps

    return leave


def compare_units(one: Unit, other: Unit) -> str:
    """Tell whether two units wrote the same, apart from measured times."""
    first, second = (of_unit(unit.run, unit.fold) for unit in (one, other))
    different = [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
    return f"DIFFERENT: {', '.join(different)}" if different else "the same bytes"
