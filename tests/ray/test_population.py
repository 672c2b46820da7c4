"""A population by the command: killed, resumed, and its winner trained again from its start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from melanoma_dist.artifacts.epochs import read_epochs
from tests.conftest import Launch

from .sweeps import SMALL, assert_nothing_repeated, journal, leaderboard, started, wait_for


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_population_copies_weights_survives_a_kill_and_its_path_is_replayed_to_the_same_bytes(
    launch: Launch, environment: dict[str, str], tmp_path: Path
) -> None:
    space, sweep = tmp_path / "space.py", tmp_path / "paths"
    space.write_text(
        "from ray import tune\n"
        'SPACE = {"optimizer.lr": tune.loguniform(1e-4, 1e-2), "model.dropout": tune.uniform(0, 0.5)}\n'
    )
    command = ["sweep", "--scheduler", "pbt", "--space", str(space), "--trials", "3", *SMALL, "--schedule", "constant"]
    command += ["--runs", str(tmp_path), "--name", "paths"]
    with started(command, environment) as process:
        wait_for(lambda: bool(children_of(sweep)), process)
        process.kill()
    decided = journal(sweep)
    done = launch(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all members trained fold 0 alone" in " ".join(done.stdout.split())
    records, children = journal(sweep), children_of(sweep)
    assert records[: len(decided)] == decided  # nothing was decided anew
    assert_nothing_repeated(records)
    assert len(children) == 3  # one of three is replaced after each of the epochs 1 to 3
    board = leaderboard(sweep)
    for child, parent in children.items():
        first = min(each["epoch"] for each in records if each["what"] == "epoch" and each["configuration"] == child)
        own, others = (read_epochs(sweep / board["name"][number] / "fold-0") for number in (child, parent))
        # Also the measured seconds of these epochs are those of the parent: nobody trained them again.
        assert own[: first - 1] == others[: first - 1]
        assert first > 1
    complete = [number for number in board.index if board["state"][number] == "complete"]
    assert len(complete) == 3
    best, last = complete[0], max(complete)  # the youngest has the longest path
    changes = yaml.safe_load((sweep / "best.yaml").read_text())["schedule"]["changes"]
    assert changes == (board["schedule.changes"].fillna("none")[best])
    assert not (sweep / board["name"][best] / "report.html").exists()
    config = sweep / "best.yaml" if best == last else sweep / board["name"][last] / "config.yaml"
    again = launch("--config", config, "--runs", tmp_path, "--name", "replay")
    assert again.returncode == 0, again.stdout + again.stderr
    winner, replay = sweep / board["name"][last], tmp_path / "replay"
    for name in ("fold-0/predictions.parquet", "model/fold-0.safetensors"):
        assert (replay / name).read_bytes() == (winner / name).read_bytes()
    assert (replay / "report.html").is_file()
    assert json.loads((replay / "record.json").read_text())["identity"]["schedule.changes"].count("@") >= 1


def children_of(sweep: Path) -> dict[int, int]:
    """The parents of the members that were started as children, by configuration."""
    path = sweep / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    starts = [json.loads(line) for line in lines if '"what": "start"' in line and '"parent": null' not in line]
    return {each["configuration"]: each["parent"] for each in starts}
