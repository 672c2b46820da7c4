"""The progress of a training: a bar and a live table in a terminal, lines in a pipe."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from melanoma_dist import console
from melanoma_dist.train.events import EpochDone, Event, Finishing, Note, Paused, StepDone, UnitDone, Validating

_LINE_INTERVAL_S = 15.0
_LINE_SHARE = 0.05  # of the time so far: a long training does not fill its log
_COLUMNS = ("epoch", "step", "loss", "validation", "best (epoch)", "images/s", "input wait", "")
_WIDE = {"input wait": 100}  # least columns of a terminal that shows it


class Display:
    """Shows the events of units, a row for each. A context manager, which restores the terminal."""

    def __init__(self, units: int = 0) -> None:
        """``units``: the number of expected units, or 0 where nobody knows it; then no bar shows the whole."""
        self._rows: dict[str, _Row] = {}
        self._units = units
        self._bar = _bar()
        self._task = self._bar.add_task("", total=1.0)
        self._live = Live(console=console.stdout, refresh_per_second=4) if console.is_live() else None
        self._start = self._last_line = time.monotonic()
        self._first: float | None = None  # when the first step of this command was reported

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self.refresh()
            self._live.stop()

    def show(self, title: str, event: Event) -> None:
        """Show an event of a unit."""
        row = self._rows.setdefault(title, _Row(title))
        row.update(event)
        if self._first is None and isinstance(event, StepDone | EpochDone):
            self._first = time.monotonic()
        if self._live is not None and isinstance(event, EpochDone):
            return  # its row has it
        if line := row.line(event):
            self.print_line(f"{line}; {self._whole()}" if isinstance(event, EpochDone) and self._units else line)

    def print_line(self, line: str) -> None:
        """Print a line above the table."""
        console.info(line)
        self._last_line = time.monotonic()

    def remove(self, title: str) -> None:
        """Remove the row of a unit."""
        self._rows.pop(title, None)

    def refresh(self) -> None:
        """Redraw the table. In a pipe, print the state of the units if no line was printed for a while."""
        now = time.monotonic()
        if self._live is not None:
            self._bar.update(self._task, completed=self._progress(), description=self._left())
            self._live.update(Group(self._bar, self._table()) if self._units else self._table())
        elif now - self._last_line > max(_LINE_INTERVAL_S, _LINE_SHARE * (now - self._start)):
            running = [row.status() for row in self._rows.values() if not row.done]
            self.print_line(" | ".join(running) if running else "starting workers ...")

    def _progress(self) -> float:
        """The share of all units' epochs that is trained, 0 to 1."""
        return sum(row.progress() for row in self._rows.values()) / self._units if self._units else 0.0

    def _whole(self) -> str:
        """How far all units are together, and the time left."""
        return f"{self._progress():.0%} of the training{', ' if self._left() else ''}{self._left()}"

    def _left(self) -> str:
        """The time left if no more units stop early, by the speed of this command; empty if that is unknown."""
        trained = sum(row.trained() for row in self._rows.values())
        if self._first is None or trained <= 0 or self._progress() == 1:
            return ""
        to_train = self._units - sum(row.progress() for row in self._rows.values())
        return f"at most {console.duration((time.monotonic() - self._first) * to_train / trained)} left"

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        names = [name for name in _COLUMNS if console.stdout.width >= _WIDE.get(name, 0)]
        table.add_column("", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for title in sorted(self._rows):
            cells = self._rows[title].cells()
            table.add_row(title, *(cells[name] for name in names))
        waiting = self._units - len(self._rows)
        if waiting > 0:
            table.add_row(f"{waiting} more", *[""] * (len(names) - 1), "waiting")
        return table


def _bar() -> Progress:
    return Progress(
        BarColumn(20), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    )


class _Row:
    """The state of one unit."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._step: StepDone | None = None
        self._epoch: EpochDone | None = None
        self._finishing: Finishing | None = None
        self._state = "starting"
        self._before: float | None = None  # what an earlier command trained
        self.done = False

    def update(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._step, self._state = event, "training"
        elif isinstance(event, Validating):
            self._state = "validating"
        elif isinstance(event, EpochDone):
            self._epoch, self._step, self._state = event, None, "training"
        elif isinstance(event, Finishing):
            self._finishing, self._state = event, event.what
        elif isinstance(event, UnitDone):
            self._finishing, self._state, self.done = None, "done", True
        elif isinstance(event, Paused):
            self._state = "saved"
        if self._before is None and isinstance(event, StepDone | EpochDone):
            self._before = self._position()

    def progress(self) -> float:
        """The share of its epochs that is over, 0 to 1; a unit that stopped early is done."""
        return 1.0 if self.done else self._position()

    def trained(self) -> float:
        """The share of its epochs that this command has trained since its first report."""
        return self._position() - (self._before or 0.0)

    def _position(self) -> float:
        if self._step is not None:
            return (self._step.epoch - 1 + self._step.step / self._step.steps) / self._step.epochs
        return self._epoch.epoch / self._epoch.epochs if self._epoch is not None else 0.0

    def line(self, event: Event) -> str | None:
        """The line for an event, or None."""
        if isinstance(event, EpochDone):
            return (
                f"{self._title} epoch {event.epoch}/{event.epochs}: loss {event.train_loss:.4f}, "
                f"{event.score_name} {event.score:.4f} "
                f"(best {event.best_score:.4f} in epoch {event.best_epoch}), {event.images_per_s:.0f} images/s, "
                f"input wait {event.wait_share:.0%}, {console.duration(event.seconds)}"
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
        if self._finishing is not None:
            return f"{self._title} {self._state}, {self._finishing.share:.0%}"
        if self._step is None:
            return f"{self._title} {self._state}"
        step = self._step
        return (
            f"{self._title} epoch {step.epoch}/{step.epochs} step {step.step}/{step.steps}, loss {step.loss:.4f}, "
            f"{step.images_per_s:.0f} images/s, input wait {step.wait_share:.0%}"
        )

    def _place(self) -> str:
        """How far its epoch is, or its last pass over images."""
        if self._finishing is not None:
            return f"{self._finishing.share:.0%}"
        return f"{self._step.step}/{self._step.steps}" if self._step and not self.done else ""

    def cells(self) -> dict[str, str]:
        """The unit's row of the live table, by column."""
        step, epoch = self._step, self._epoch
        latest = step or epoch
        loss = step.loss if step else epoch.train_loss if epoch else None
        return {
            "epoch": f"{latest.epoch}/{latest.epochs}" if latest else "",
            "step": self._place(),
            "loss": f"{loss:.4f}" if loss is not None else "",
            "validation": f"{epoch.score_name} {epoch.score:.4f}" if epoch else "",
            "best (epoch)": f"{epoch.best_score:.4f} ({epoch.best_epoch})" if epoch else "",
            "images/s": f"{latest.images_per_s:.0f}" if latest else "",
            "input wait": f"{latest.wait_share:.0%}" if latest else "",
            "": self._state,
        }
