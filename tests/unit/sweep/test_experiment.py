"""The experiment folder of a sweep: its latest state has the trials of all commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray.tune.experiment import Trial

from melanoma_dist import load_sweep
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.experiment import merge_sessions


def write_session(experiment: Path, time: str, trials: list[tuple[str, int, float | None, float]]) -> None:
    """Write what Tune writes for a command: its trials, with name, fold, time of start and best score."""
    data = []
    for name, fold, start, score in trials:
        trial = Trial("UnitTrial", config={"name": name, "fold": fold}, stub=True)
        trial.update_last_result({"best_score": score, "trial_id": trial.trial_id, "done": True})
        trial.run_metadata.start_time = start
        trial.run_metadata.invalidate_cache()
        data.append(list(trial.get_json_state()))
    state = {"trial_data": data, "runner_data": {}, "stats": {}}
    (experiment / f"experiment_state-{time}.json").write_text(json.dumps(state))


def scores(experiment: Path) -> dict[tuple[str, int], float]:
    states = sorted(experiment.glob("experiment_state-*.json"))
    trials = json.loads(states[-1].read_text())["trial_data"]
    read = [(json.loads(trial)["config"], json.loads(metadata)["last_result"]) for trial, metadata in trials]
    return {(config["name"], config["fold"]): result["best_score"] for config, result in read}


def test_the_latest_state_lists_each_unit_of_all_commands_once_as_its_last_trial(tmp_path: Path) -> None:
    write_session(
        tmp_path, "2026-01-01_10-00-00", [("c000-a", 0, 1.0, 0.7), ("c001-b", 0, 3.0, 0.6), ("c001-b", 0, 2.0, 0.1)]
    )
    write_session(
        tmp_path, "2026-01-01_12-00-00", [("c001-b", 0, 4.0, 0.8), ("c000-a", 1, 5.0, 0.9), ("c000-a", 0, None, 0.0)]
    )
    for _ in range(2):
        merge_sessions(tmp_path)
        assert scores(tmp_path) == {("c000-a", 0): 0.7, ("c001-b", 0): 0.8, ("c000-a", 1): 0.9}


def test_a_command_that_started_no_trial_leaves_nothing_to_merge(tmp_path: Path) -> None:
    merge_sessions(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_an_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no experiment of Ray Tune"):
        load_sweep(tmp_path)
