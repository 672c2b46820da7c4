from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from melanoma_dist import console


def record(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.StringIO:
    """What the program prints, to a terminal or to a pipe."""
    output = io.StringIO()
    monkeypatch.setattr(console, "stdout", Console(file=output, force_terminal=terminal, width=80, highlight=False))
    return output


def test_a_phase_in_a_pipe_is_a_line_when_it_starts_and_one_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    output = record(monkeypatch, terminal=False)
    monkeypatch.setattr(console, "_BRIEF_S", 0.0)
    with console.phase("start Ray"):
        assert output.getvalue() == "start Ray ...\n"
    assert output.getvalue() == "start Ray ...\nstart Ray: 0 s\n"


def test_a_phase_in_a_terminal_shows_a_clock_and_leaves_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    output = record(monkeypatch, terminal=True)
    monkeypatch.setattr(console, "_BRIEF_S", 0.0)
    with console.phase("load [b]the model[/b]"):
        time.sleep(0.3)
        assert "load [b]the model[/b]" in output.getvalue()
        assert "0:00:00" in output.getvalue()
    assert output.getvalue().endswith("load [b]the model[/b]: 0 s\n")


def test_a_brief_phase_leaves_no_line_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    output = record(monkeypatch, terminal=False)
    with console.phase("check"):
        pass
    assert output.getvalue() == "check ...\n"


def test_a_phase_that_fails_passes_the_error_on_and_claims_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    output = record(monkeypatch, terminal=False)
    monkeypatch.setattr(console, "_BRIEF_S", 0.0)
    with pytest.raises(OSError, match="full"), console.phase("write"):
        raise OSError("full")
    assert output.getvalue() == "write ...\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7260, "2 h 01 min")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text
