"""Units as Ray Train jobs, several side by side. The only module that imports ray.train.

Each job is driven by an actor of its own, which is killed after a failure: whatever Ray Train failed to release (a
placement group, a controller) goes with it, and no unit can hold up another. Ray Train is not asked to restart anything:
whether a unit that failed is worth another try is decided here, by ``retry``.

On GPUs, and for several ranks, Ray Train starts a worker group. A single CPU rank is trained by Ray Train's local mode in
the driving actor itself, which holds its cores: a worker group would take a minute to start where training takes two.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from melanoma_dist.dist.plan import Layout
from melanoma_dist.errors import MelanomaDistError, TrainingError
from melanoma_dist.train.events import Event, Note
from melanoma_dist.train.unit import Unit

_POLL_S = 0.25


@dataclass(frozen=True)
class Decision:
    """Whether to start a failed unit again, and why."""

    again: bool
    why: str


def retry(error: BaseException, restarts: int, max_restarts: int) -> Decision:
    """What to do about a unit that failed after ``restarts`` restarts."""
    if isinstance(error, MelanomaDistError):
        return Decision(False, "it would fail again")
    if restarts >= max_restarts:
        return Decision(False, f"it was restarted {restarts} times (--max-restarts {max_restarts})")
    return Decision(True, f"restart {restarts + 1} of {max_restarts} from its last checkpoint")


def train_units(units: Sequence[Unit], layout: Layout, on_event: Callable[[Event], None], idle: Callable[[], None]) -> None:
    """Train all units, ``layout.side_by_side`` at a time.

    ``on_event`` gets what they report, ``idle`` is called a few times a second. The first unit that fails for good ends
    the others, whose checkpoints stay, and its error is raised.
    """
    mailbox = _Mailbox.options(num_cpus=0).remote()  # type: ignore[attr-defined]
    waiting = list(units)
    restarts = dict.fromkeys(units, 0)
    drivers: list[Any] = []  # idle ones
    running: dict[Any, tuple[Unit, Any]] = {}
    while waiting or running:
        while waiting and len(running) < layout.side_by_side:
            driver = drivers.pop() if drivers else _Driver.options(num_cpus=_own_cores(layout)).remote()  # type: ignore[attr-defined]
            unit = waiting.pop(0)
            running[driver.train.remote(unit, layout, mailbox)] = unit, driver
        done, _ = ray.wait(list(running), timeout=_POLL_S)
        for event in ray.get(mailbox.take.remote()):
            on_event(event)
        idle()
        for task in done:
            unit, driver = running.pop(task)
            error = _error_of(task)
            if error is None:
                drivers.append(driver)
                continue
            ray.kill(driver)
            decision = retry(error, restarts[unit], unit.config.hardware.max_restarts)
            if not decision.again:
                raise _told(error, unit, decision)
            on_event(Note(unit.fold, f"{_last_line(error)}; {decision.why}"))
            restarts[unit] += 1
            waiting.insert(0, unit)


def _in_process(layout: Layout) -> bool:
    return layout.ranks == 1 and not layout.gpu


def _own_cores(layout: Layout) -> float:
    """What a driving actor holds itself: a worker group has resources of its own."""
    return layout.cores if _in_process(layout) else 0


def _error_of(task: Any) -> BaseException | None:
    try:
        ray.get(task)
    except RayTaskError as error:
        cause: BaseException = error.cause if isinstance(error.cause, Exception) else error
        return cause
    except RayError as error:
        return cast(BaseException, error)
    return None


@ray.remote
class _Mailbox:
    """Where ranks, on any node, leave events for the driver."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


@ray.remote
class _Driver:
    """Drives one job after another; a process of its own."""

    def train(self, unit: Unit, layout: Layout, mailbox: Any) -> None:
        _fit(unit, layout, mailbox)


def _fit(unit: Unit, layout: Layout, mailbox: Any) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray Train keeps a record of its own; ours is in the checkpoints, so its is of this attempt only, and goes after it.
    for left in unit.folder.glob(".ray-*"):  # by an attempt that was killed
        shutil.rmtree(left, ignore_errors=True)
    scratch = unit.folder / f".ray-{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"unit": unit, "layout": layout, "mailbox": mailbox},
        torch_config=TorchConfig(
            backend="nccl" if layout.gpu else "gloo", timeout_s=unit.config.hardware.collective_timeout_s
        ),
        scaling_config=ScalingConfig(
            num_workers=0 if _in_process(layout) else layout.ranks,
            use_gpu=layout.gpu,
            resources_per_worker={"CPU": layout.cores, **({"GPU": 1} if layout.gpu else {})},
            placement_strategy="STRICT_PACK" if layout.ranks > 1 else "PACK"  # one node,
        ),
        run_config=RunConfig(
            name="attempt",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        failures = list(getattr(error, "worker_failures", {}).values())
        raise next((cause for cause in failures if isinstance(cause, MelanomaDistError)), error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rank(settings: dict[str, Any]) -> None:
    """What each rank of a unit runs."""
    from ray.train.torch import get_device

    from melanoma_dist.dist.world import detect
    from melanoma_dist.train.loop import train_unit

    layout, mailbox = settings["layout"], settings["mailbox"]
    # A rank may see all GPUs of its node; Ray Train knows which one is its own.
    gpu = get_device().index if layout.gpu else None
    train_unit(settings["unit"], detect(gpu, layout.threads), mailbox.put.remote)


def _told(error: BaseException, unit: Unit, decision: Decision) -> MelanomaDistError:
    if isinstance(error, MelanomaDistError):
        return error
    return TrainingError(f"Fold {unit.fold} failed and {decision.why}: {_last_line(error)}")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
