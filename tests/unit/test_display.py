from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from melanoma_dist import console, display
from melanoma_dist.display import Display
from melanoma_dist.train.events import EpochDone, Event, Finishing, Note, Paused, StepDone, UnitDone

STEP = StepDone(0, 3, 30, 120, 1200, 1234.5, 0.034, 0.4321)
EPOCH = EpochDone(0, 12, 30, 0.4321, 0.5, "AUC", 0.9123, 0.9234, 11, 1234.5, 0.034, 75.0)


def record(monkeypatch: pytest.MonkeyPatch, terminal: bool, width: int = 80) -> io.StringIO:
    output = io.StringIO()
    screen = Console(file=output, force_terminal=terminal, width=width, highlight=False, soft_wrap=not terminal)
    monkeypatch.setattr(console, "stdout", screen)
    return output


class Clock:
    """The time that the display sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(display.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize(("width", "wide"), [(80, False), (120, True)])
def test_the_table_fits_the_terminal(width: int, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch, terminal=True, width=width)
    screen = Display(units=5)
    for fold, events in enumerate([(EPOCH, UnitDone(0, "AUC", 0.9, 12, "no gain for 6 epochs")), (EPOCH, STEP)]):
        for event in events:
            screen.show(f"seed 1 fold {fold}", event)
    output = record(monkeypatch, terminal=False, width=width)
    console.stdout.print(screen._table())
    lines = output.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "…" not in output.getvalue()
    assert lines[1].startswith("seed 1 fold 0 ")
    assert lines[1].rstrip().endswith("done")
    assert lines[3].split() == ["3", "more", "waiting"]
    assert ("input wait" in lines[0]) == wide


def after_a_minute(monkeypatch: pytest.MonkeyPatch, epoch: int) -> tuple[Display, io.StringIO]:
    """Two units of four epochs that begin ``epoch`` side by side, and take a minute for it."""
    output = record(monkeypatch, terminal=False)
    clock = Clock(monkeypatch)
    screen = Display(units=2)
    for fold in (0, 1):
        screen.show(f"fold {fold}", StepDone(fold, epoch, 4, 0, 10, 1.0, 0.0, 0.5))
    clock.now += 60
    return screen, output


def epoch_done(fold: int, epoch: int) -> EpochDone:
    return EpochDone(fold, epoch, 4, 0.5, 0.5, "AUC", 0.8, 0.8, 1, 1.0, 0.0, 60.0)


def test_the_time_left_is_that_of_the_whole_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier command trained the first half of both units."""
    screen, output = after_a_minute(monkeypatch, epoch=3)
    for fold in (0, 1):
        screen.show(f"fold {fold}", epoch_done(fold, 3))
    assert output.getvalue().splitlines()[-1].endswith("75% of the training, at most 1 min 00 s left")


def test_a_unit_that_stops_early_makes_the_others_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, output = after_a_minute(monkeypatch, epoch=1)
    screen.show("fold 0", epoch_done(0, 1))
    screen.show("fold 0", UnitDone(0, "AUC", 0.8, 1, "no gain for 1 epochs"))
    screen.show("fold 1", epoch_done(1, 1))
    # Two epochs took a minute, and at most three are left.
    assert output.getvalue().splitlines()[-1].endswith("62% of the training, at most 1 min 30 s left")


def test_a_pipe_gets_lines_at_growing_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    output = record(monkeypatch, terminal=False)
    clock = Clock(monkeypatch)
    counts = []
    with Display(units=1) as screen:
        screen.show("fold 0", STEP)
        for _ in range(2):
            before = output.getvalue().count("\n")
            for _ in range(3600):
                clock.now += 1
                screen.refresh()
            counts.append(output.getvalue().count("\n") - before)
    assert 40 < counts[0] < 100
    assert 5 < counts[1] < 25
    assert "fold 0 epoch 3/30 step 120/1200, loss 0.4321, 1234 images/s, input wait 3%" in output.getvalue()
    assert not any(mark in output.getvalue() for mark in "\x1b\r")


def test_the_last_pass_over_images_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    output = record(monkeypatch, terminal=False)
    clock = Clock(monkeypatch)
    screen = Display(units=2)
    for event in (EPOCH, Finishing(0, "features", 0.513)):
        screen.show("seed 1 fold 0", event)
    clock.now += 60
    screen.refresh()
    assert output.getvalue().splitlines()[-1] == "seed 1 fold 0 features, 51%"
    console.stdout.print(screen._table())
    row = next(line for line in output.getvalue().splitlines() if "12/30" in line and "51%" in line)
    assert len(row.rstrip()) <= 80
    assert row.rstrip().endswith("features")
    screen.show("seed 1 fold 0", UnitDone(0, "AUC", 0.9, 12, "no gain for 6 epochs"))
    assert "51%" not in screen._rows["seed 1 fold 0"].cells().values()


@pytest.mark.parametrize(("event", "line"), [
    (Note(0, "resumes after epoch 2"), "fold 0: resumes after epoch 2"),
    (Paused(0, "step 3 of 40 of epoch 2"), "fold 0 saved after step 3 of 40 of epoch 2"),
    (UnitDone(0, "AUC", 0.9, 12, "no gain for 6 epochs"), "fold 0 done: best AUC 0.9000 in epoch 12, no gain for 6"),
])  # fmt: skip
def test_what_happened_stays_on_the_screen(event: Event, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = record(monkeypatch, terminal=True)
    with Display(units=1) as screen:
        screen.show("fold 0", event)
    assert line in output.getvalue()


def test_no_colour_is_shown_to_those_who_want_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = record(monkeypatch, terminal=True)
    with Display(units=1) as screen:
        screen.show("fold 0", STEP)
        screen.refresh()
    assert "\x1b[" in output.getvalue()  # it moves the cursor
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-9])[0-9;]*m", output.getvalue())


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    output = record(monkeypatch, terminal=True)
    with Display(units=1) as screen:
        screen.show("fold 0", EPOCH)
        screen.refresh()
    assert "fold 0 epoch 12/30: loss 0.4321" in output.getvalue()
    assert "\x1b[" not in output.getvalue()
