"""Sweeps by the command: to the end, killed and resumed, and over two nodes, with the loss of one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from melanoma_dist.artifacts.epochs import read_epochs
from tests.conftest import Launch

from .sweeps import (
    SMALL,
    assert_nothing_repeated,
    epochs_of,
    has_started_after,
    journal,
    leaderboard,
    started,
    wait_for,
    wait_until,
)

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
SPACE = """from ray import tune
SPACE = {"optimizer.lr": tune.choice([1e-5, 1e-4, 1e-3, 1e-2]), "model.pooling": tune.choice(["avg", "max"])}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.py"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def swept(launch: Launch, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed sweep of five configurations, one unit at a time: two ranks on two cores would take turns."""
    runs = tmp_path_factory.mktemp("sweeps")
    done = launch("sweep", "--space", space, "--trials", "5", *SMALL, "--runs", runs, "--name", "whole")
    assert done.returncode == 0, done.stdout + done.stderr
    (runs / "whole" / "stdout.txt").write_text(done.stdout)
    return runs / "whole"


def test_a_sweep_leaves_a_leaderboard_a_ledger_a_page_and_the_best_configuration(swept: Path) -> None:
    board, ledger = leaderboard(swept), pd.read_parquet(swept / "ledger.parquet")
    assert len(board) == 5
    assert board["state"].iloc[0] == "complete"
    assert board["mean_auc"].iloc[0] == board.loc[board["state"] == "complete", "mean_auc"].max()
    assert set(board["state"]) <= {"complete", "waiting", "dropped"}
    assert "waiting" in set(board["state"])
    assert board.loc[board["state"] != "complete", "why"].notna().all()
    assert (ledger["device_seconds"] > 0).all()
    assert ledger["epochs"].sum() < 5 * 2 * 4
    page = (swept / "sweep.html").read_text()
    assert page.count("<svg") == 4  # five configurations are too few for the importance of hyperparameters
    assert "SYNTHETIC" in page
    best = yaml.safe_load((swept / "best.yaml").read_text())
    assert best["optimizer"]["lr"] == board["optimizer.lr"].iloc[0]
    assert best["name"] is None


def test_a_complete_configuration_is_a_run_and_its_mean_is_that_of_its_folds(swept: Path) -> None:
    board = leaderboard(swept)
    run = swept / board["name"].iloc[0]
    summary = json.loads((run / "summary.json").read_text())
    # The race compares epochs by upright images; the report has the mean of all orientations.
    best = [read_epochs(run / f"fold-{fold}")[-1].best_score for fold in summary["folds"]]
    assert board["mean_auc"].iloc[0] == pytest.approx(sum(best) / len(best), abs=1e-12)
    folds = [fold["labels"]["MEL"]["auc"] for fold in summary["folds"].values()]
    assert folds != best
    assert (run / "report.html").is_file()
    assert not list(swept.rglob("checkpoints"))


def test_tensorboard_shows_units_and_hyperparameters_under_readable_names(swept: Path) -> None:
    name = leaderboard(swept)["name"].iloc[0]
    run = EventAccumulator(str(swept / name)).Reload()
    assert run.Scalars("hparam/folds_finished")[0].value == 2
    assert run.Scalars("hparam/auc_mean_over_folds")[0].value == pytest.approx(leaderboard(swept)["mean_auc"].iloc[0])
    for configuration in leaderboard(swept)["name"]:
        events = EventAccumulator(str(swept / configuration)).Reload()
        session = plugin_data_pb2.HParamsPluginData.FromString(
            events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        )
        assert set(session.session_start_info.hparams) == {"optimizer.lr", "model.pooling"}
        assert events.Scalars("hparam/auc_first_fold")
    unit = EventAccumulator(str(swept / name / "fold-1")).Reload()
    assert len(unit.Scalars("validation_auc/MEL")) == 4


def test_a_sweep_reports_its_winner_with_the_cost_and_a_warning(swept: Path) -> None:
    output = (swept / "stdout.txt").read_text()
    assert "the winner's metrics are optimistic" in output
    assert "full cross-validation of the same configurations would have cost about" in output
    assert "not among the best 1 in 4" in output


def test_the_same_command_shows_a_finished_sweep_again(swept: Path, launch: Launch, space: Path) -> None:
    before = (swept / "journal.jsonl").read_bytes()
    again = launch("sweep", "--space", space, "--trials", "5", *SMALL, "--runs", swept.parent, "--name", "whole")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Leaderboard" in again.stdout
    assert (swept / "journal.jsonl").read_bytes() == before


def test_the_best_configuration_is_trained_with_all_folds_to_the_same_predictions(
    swept: Path, launch: Launch, tmp_path: Path
) -> None:
    done = launch("--config", swept / "best.yaml", "--runs", tmp_path, "--name", "best")
    assert done.returncode == 0, done.stdout + done.stderr
    ours = pd.read_parquet(tmp_path / "best" / "predictions.parquet")
    theirs = pd.read_parquet(swept / leaderboard(swept)["name"].iloc[0] / "predictions.parquet")
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def outcome(sweep: Path) -> pd.DataFrame:
    """The leaderboard without measured times."""
    return leaderboard(sweep).drop(columns="device_hours")


@pytest.fixture(scope="module")
def in_turn(space: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed sweep on one core: one unit at a time decides in one order, and others can be compared with it."""
    runs = tmp_path_factory.mktemp("sweeps")
    command = ["sweep", "--space", str(space), "--trials", "5", *SMALL, "--runs", str(runs), "--name", "whole"]
    with started(command, environment, one_core=True) as process:
        output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, output + errors
    return runs / "whole"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_signal_kill_and_lost_node_change_nothing(
    in_turn: Path, space: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Interrupt the command, then kill it; on a cluster, lose the only node that trains and add another."""
    sweep = tmp_path / "whole"
    command = ["sweep", "--space", str(space), "--trials", "5", *SMALL, "--runs", str(tmp_path), "--name", "whole"]
    with started(command, environment, one_core=True) as process:
        wait_for(lambda: has_started_after(sweep, epochs=1), process)
        process.terminate()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, output + errors
    assert journal(sweep)[-1]["state"] == "paused"
    with started(command, environment, one_core=True) as process:
        wait_for(lambda: epochs_of(sweep) >= 2, process)
        process.kill()
    with (
        simulated(nodes=1, cores=1) as (cluster, nodes),
        started([*command, "--address", cluster.address], environment | TOKEN) as process,
    ):
        wait_for(lambda: has_started_after(sweep, epochs=6), process)
        cluster.remove_node(nodes[0], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, output + errors
    assert "resume: " in output
    assert "restart 1 of 3 from its last checkpoint" in output
    pd.testing.assert_frame_equal(outcome(sweep), outcome(in_turn))
    assert_nothing_repeated(journal(sweep))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_nodes_share_a_sweep_of_worker_groups_and_everything_is_released(
    space: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """One of the nodes is lost; in the end all resources are free and no placement group is left."""
    import ray
    from ray.util import placement_group_table

    with simulated(nodes=2, cores=2) as (cluster, nodes):
        flags = ["sweep", "--space", str(space), "--trials", "4", *SMALL, "--ranks-per-unit", "2"]
        flags += ["--address", cluster.address, "--runs", str(tmp_path), "--name", "two"]
        with started(flags, environment | TOKEN) as process:
            wait_for(lambda: epochs_of(tmp_path / "two") >= 2, process)
            cluster.remove_node(nodes[0], allow_graceful=False)
            output, errors = process.communicate(timeout=1500)
        assert process.returncode == 0, output + errors
        assert "2 folds at a time on 2 CPU ranks each" in output
        board = leaderboard(tmp_path / "two")
        assert len(board) == 4
        assert set(board["state"]) <= {"complete", "waiting", "dropped"}
        assert (board["state"] != "complete").sum() >= 2
        ray.init(address=cluster.address, log_to_driver=False)
        wait_until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources().get("CPU") == 2.0)
        assert [group for group in placement_group_table().values() if group["state"] != "REMOVED"] == []


@contextmanager
def simulated(nodes: int, cores: int) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster on this machine, guarded by ``TOKEN``: a head that trains nothing, and nodes."""
    import ray
    from ray._raylet import Config
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in TOKEN.items():
            patch.setenv(name, value)
        Config.initialize("")  # Ray may have read the environment already
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            yield cluster, [cluster.add_node(num_cpus=cores) for _ in range(nodes)]
        finally:
            ray.shutdown()
            cluster.shutdown()
    Config.initialize("")
