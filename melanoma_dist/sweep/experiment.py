"""The experiment folder of Ray Tune in a sweep, as its own tools read it."""

from __future__ import annotations

import json
from pathlib import Path

from melanoma_dist.storage import atomic

EXPERIMENT = "tune"
"""Its name in the folder of a sweep."""

STATES = "experiment_state-*.json"
"""Tune's files with the trials of each command; the time in their names orders them."""


def merge_sessions(experiment: Path) -> None:
    """Add the trials of earlier commands to the state of the latest one: Tune's tools read that alone.

    Of the trials of one unit, the one that started last stays. Contents that Tune pickled are copied as they are.
    """
    states = {path: json.loads(path.read_text()) for path in sorted(experiment.glob(STATES))}
    if not states:
        return
    trials = [trial for state in states.values() for trial in state["trial_data"]]
    last = {_unit(trial): trial for trial in sorted(trials, key=_start)}
    latest, state = states.popitem()
    atomic.write_text(latest, json.dumps({**state, "trial_data": list(last.values())}))


def _unit(trial: list[str]) -> tuple[str, int]:
    config = json.loads(trial[0])["config"]
    return config["name"], config["fold"]


def _start(trial: list[str]) -> float:
    """Seconds since 1970; 0 for a trial that never started."""
    return float(json.loads(trial[1])["start_time"] or 0)
