"""The trainable of a sweep: a trial of Ray Tune trains a unit."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

import ray
from ray import tune

from melanoma_dist.distributed.plan import Layout
from melanoma_dist.distributed.ray_workers import drive
from melanoma_dist.train.unit import Unit

TICKET, LEFT = "ticket", "left"
"""In a result: the ticket of an epoch that waits for an answer; that the unit left."""


class UnitTrial(tune.Trainable):  # type: ignore[misc]
    """Trains a unit. Each result is an epoch, and the last one follows when the unit left."""

    def setup(self, config: dict[str, Any], layout: Layout, events: Any) -> None:
        """Start the unit of this trial."""
        self._layout, self._events = layout, events
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the unit of the next trial in this process. That of the trial before has left."""
        self._unit: Unit = ray.get(self._events.unit_of.remote(self.trial_id))
        self._epoch: dict[str, Any] = {}
        self._error: BaseException | None = None
        threading.Thread(target=self._train, daemon=True).start()
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next epoch or the end. Raises the error that ended the unit."""
        report = ray.get(self._events.next_epoch.remote(self._unit))
        if report is not None:
            ticket, event = report
            self._epoch = asdict(event)
            return {**self._epoch, TICKET: ticket}
        if self._error is not None:
            raise self._error
        return {**self._epoch, LEFT: True}

    def train_unit(self) -> None:
        """Train the unit until it leaves."""
        drive(self._unit, self._layout, self._events)

    def _train(self) -> None:
        try:
            self.train_unit()
        except BaseException as error:  # ``step`` raises it
            self._error = error
        finally:
            ray.get(self._events.leave.remote(self._unit))
