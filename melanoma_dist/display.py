"""The progress of a training: a live table in a terminal, lines in a pipe."""

from __future__ import annotations

import time
from types import TracebackType

from rich.live import Live
from rich.table import Table

from melanoma_dist import console
from melanoma_dist.train.events import EpochDone, Event, Note, Paused, StepDone, UnitDone, Validating

_LINE_INTERVAL_S = 15.0
_COLUMNS = ("epoch", "step", "images/s", "input wait", "loss", "validation", "best", "time left", "")


class Display:
    """Shows the events of units, a row for each. A context manager, which restores the terminal."""

    def __init__(self, units: int = 0) -> None:
        """``units``: the number of expected units. Those that did not start yet are empty rows."""
        self._rows: dict[str, _Row] = {}
        self._units = units
        self._live = Live(console=console.stdout, refresh_per_second=4) if console.stdout.is_terminal else None
        self._last_line = time.monotonic()

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, title: str, event: Event) -> None:
        """Show an event of a unit."""
        row = self._rows.setdefault(title, _Row(title))
        row.update(event)
        if self._live is not None:
            if isinstance(event, Note):
                console.info(f"{title}: {event.text}")
        elif line := row.line(event):
            self.print_line(line)

    def print_line(self, line: str) -> None:
        """Print a line above the table."""
        console.info(line)
        self._last_line = time.monotonic()

    def remove(self, title: str) -> None:
        """Remove the row of a unit."""
        self._rows.pop(title, None)

    def refresh(self) -> None:
        """Redraw the table. In a pipe, print the state of the units if no line was printed for a while."""
        if self._live is not None:
            self._live.update(self._table())
        elif time.monotonic() - self._last_line > _LINE_INTERVAL_S:
            running = [row.status() for row in self._rows.values() if not row.done]
            self.print_line(" | ".join(running) if running else "starting workers ...")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("")
        for name in _COLUMNS:
            table.add_column(name, justify="right" if name else "left")
        for title in sorted(self._rows):
            table.add_row(*self._rows[title].cells())
        for _ in range(self._units - len(self._rows)):
            table.add_row(*["·"] + [""] * (len(_COLUMNS) - 1), "waiting")
        return table


class _Row:
    """The state of one unit."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._step: StepDone | None = None
        self._epoch: EpochDone | None = None
        self._state = "starting"
        self.done = False

    def update(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._step, self._state = event, "training"
        elif isinstance(event, Validating):
            self._state = "validating"
        elif isinstance(event, EpochDone):
            self._epoch, self._step, self._state = event, None, "training"
        elif isinstance(event, UnitDone):
            self._state, self.done = f"done: {event.reason}", True
        elif isinstance(event, Paused):
            self._state = "saved"

    def line(self, event: Event) -> str | None:
        """The line for an event in a pipe, or None."""
        if isinstance(event, EpochDone):
            return (
                f"{self._title} epoch {event.epoch}/{event.epochs}: loss {event.train_loss:.4f}, "
                f"{event.score_name} {event.score:.4f} "
                f"(best {event.best_score:.4f} in epoch {event.best_epoch}), {event.images_per_s:.0f} images/s, "
                f"input wait {event.wait_share:.0%}, {event.seconds:.0f} s, at most {_duration(self._remaining())} left"
            )
        if isinstance(event, UnitDone):
            return (
                f"{self._title} done: best {event.score_name} {event.best_score:.4f} in epoch "
                f"{event.best_epoch}, {event.reason}"
            )
        if isinstance(event, Paused):
            return f"{self._title} saved after {event.where}"
        return f"{self._title}: {event.text}" if isinstance(event, Note) else None

    def status(self) -> str:
        """The state of the unit in a few words."""
        if self._step is None:
            return f"{self._title} {self._state}"
        step = self._step
        return (
            f"{self._title} epoch {step.epoch}/{step.epochs} step {step.step}/{step.steps}, loss {step.loss:.4f}, "
            f"{step.images_per_s:.0f} images/s, input wait {step.wait_share:.0%}"
        )

    def cells(self) -> list[str]:
        """The unit's row of the live table."""
        step, epoch = self._step, self._epoch
        latest = step or epoch
        loss = step.loss if step else epoch.train_loss if epoch else None
        return [
            self._title,
            f"{latest.epoch}/{latest.epochs}" if latest else "",
            f"{step.step}/{step.steps}" if step and not self.done else "",
            f"{latest.images_per_s:.0f}" if latest else "",
            f"{latest.wait_share:.0%}" if latest else "",
            f"{loss:.4f}" if loss is not None else "",
            f"{epoch.score_name} {epoch.score:.4f}" if epoch else "",
            f"{epoch.best_score:.4f} (epoch {epoch.best_epoch})" if epoch else "",
            "" if self.done else _duration(self._remaining()),
            self._state,
        ]

    def _remaining(self) -> float | None:
        """Seconds left without early stopping."""
        if self._epoch is None:
            return None
        seconds = (self._epoch.epochs - self._epoch.epoch) * self._epoch.seconds
        if self._step is not None:
            seconds -= self._epoch.seconds * self._step.step / self._step.steps
        return max(seconds, 0.0)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
