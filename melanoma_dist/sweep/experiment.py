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

    Of the trials of one unit, the last one stays. Contents that Tune pickled are copied as they are.
    """
    trials: dict[str, list[str]] = {}
    states = sorted(experiment.glob(STATES))
    for path in states:
        state = json.loads(path.read_text())
        for trial, metadata in state["trial_data"]:
            config = json.loads(trial)["config"]
            unit = f"{config['name']} {config['fold']}"
            trials.pop(unit, None)
            trials[unit] = [trial, metadata]
    if states:
        state["trial_data"] = list(trials.values())
        atomic.write_text(states[-1], json.dumps(state))
