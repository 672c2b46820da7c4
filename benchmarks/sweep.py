"""Measure what early stopping saves in a sweep, and what it loses.

    python benchmarks/sweep.py --sections simulate scale
    python benchmarks/sweep.py --sections real replay --data DATA --weights tf_efficientnet_lite0.safetensors

simulate: 200 synthetic sweeps under several stopping policies, decided by the code that decides real sweeps. scale:
what the decisions of one sweep of 1,000 configurations on 256 GPUs cost the command, and a resumption. real:
one sweep of 12 configurations on ISIC 2017 by the command itself, first in full and then with early stopping; its
curves go to benchmarks/sweep-curves.json. replay: the decisions on the recorded curves in other orders.

Cost is the time in which units hold their devices, as a share of the time that all folds of all configurations take
(each with patience). Regret is the mean AUC over all folds of the best configuration less that of the chosen one.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro
from conditions import commit, launch, machine, run_benchmark
from scipy.stats import bootstrap
from sweep_simulation import Curves, SimulatedSweep, simulate_sweep, simulated_controller, synthetic_curves

from melanoma_dist import console
from melanoma_dist.config.run import DataConfig, RunConfig, ScheduleConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.journal import EpochFinished, Record, SessionStarted, read_journal
from melanoma_dist.sweep.ledger import make_ledger
from melanoma_dist.sweep.replay import replay as replay_journal

_ROOT = Path(__file__).resolve().parents[1]
_RECORDED = _ROOT / "benchmarks" / "sweep-curves.json"
_POLICIES: dict[str, dict[str, Any]] = {
    "none": {"scheduler": "none", "fold_race": "none"},
    "ASHA alone": {"scheduler": "asha", "fold_race": "none"},
    "racing alone": {"scheduler": "none", "fold_race": "forgiving"},
    "ASHA and racing": {"scheduler": "asha", "fold_race": "forgiving"},
    "ASHA (1 in 3) and racing": {"scheduler": "asha", "fold_race": "forgiving", "reduction_factor": 3.0},
    "halving and racing": {"scheduler": "halving", "fold_race": "forgiving"},
    "halving (1 in 3) and racing": {"scheduler": "halving", "fold_race": "forgiving", "reduction_factor": 3.0},
    "halving and racing, aggressive": {"scheduler": "halving", "fold_race": "aggressive"},
}
_SPACE = """from ray import tune
SPACE = {{
    "model.backbone": tune.choice(["tf_efficientnet_lite0", "test_resnet", "mobilenetv3_small_050"]),
    "model.weights": tune.sample_from(
        lambda config: {weights!r} if config["model.backbone"] == "tf_efficientnet_lite0" else "none"
    ),
    "model.pooling": tune.choice(["avg", "gem"]),
    "optimizer.lr": tune.loguniform(1e-5, 1e-2),
    "optimizer.head_lr_factor": tune.choice([1.0, 10.0]),
    "optimizer.weight_decay": tune.choice([0.0, 1e-4]),
    "schedule.schedule": tune.choice(["plateau", "cosine"]),
    "loss.class_weights": tune.choice(["none", "balanced"]),
}}
"""


@dataclass(frozen=True)
class Settings:
    """Sections to run, and their settings."""

    sections: tuple[Literal["simulate", "scale", "real", "replay"], ...] = ("simulate",)
    """What to measure."""
    data: Path | None = None
    """Prepared data set of ISIC 2017, for real."""
    weights: Path | None = None
    """ImageNet weights of tf_efficientnet_lite0, for real."""
    runs: Path = Path("runs")
    """Where the real sweeps are kept; interrupted ones are resumed."""
    gpus: int = 0
    """GPUs for the real sweeps; 0 for the CPU."""
    image_size: int = 48
    """Side of the input of the real sweeps."""
    epochs: int = 6
    """Epochs of a fold of the real sweeps."""
    grace_epochs: int = 1
    """Grace of the real sweeps and of their replay."""
    sweeps: int = 200
    """Simulated sweeps, and replayed orders."""
    slots: int = 4
    """Units side by side in a simulation."""
    seed: int = 0
    """Seed of simulations and of the real sweeps."""


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}")
    for section in settings.sections:
        {"simulate": simulate, "scale": scale, "real": real, "replay": replay}[section](settings)


def simulate(settings: Settings) -> None:
    """Simulate sweeps of 24 configurations, 5 folds, 30 epochs."""
    config = RunConfig(data=DataConfig(folds=5), schedule=ScheduleConfig(epochs=30))
    results: dict[str, list[SimulatedSweep]] = {policy: [] for policy in _POLICIES}
    for number in range(settings.sweeps):
        curves = synthetic_curves(np.random.default_rng([settings.seed, number]), configurations=24, folds=5, epochs=30)
        for policy, chosen in _POLICIES.items():
            results[policy].append(simulate_sweep(curves, SweepConfig(run=config, trials=24, **chosen), settings.slots))
    _show(
        f"{settings.sweeps} simulated sweeps: 24 configurations, 5 folds, 30 epochs, {settings.slots} at a time",
        results,
    )


def scale(settings: Settings) -> None:
    """Time the decisions of a large sweep, the reading of its journal, and the tables."""
    configurations, folds, epochs, slots = 1_000, 5, 30, 256
    config = RunConfig(data=DataConfig(folds=folds), schedule=ScheduleConfig(epochs=epochs))
    curves = synthetic_curves(np.random.default_rng(settings.seed), configurations, folds, epochs)
    sweep = SweepConfig(run=config, trials=configurations)
    records: list[Record] = [SessionStarted(0.0, configurations, "GPU", 1.0, 1, 1.0, slots)]
    rows, start = [], time.process_time()

    def lap(what: str) -> None:
        nonlocal start
        rows.append([what, f"{time.process_time() - start:.2f}"])
        start = time.process_time()

    simulate_sweep(curves, sweep, slots, records.append)
    lap(f"all decisions of {len(records)} records")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        lines = (json.dumps({"what": record.what, **asdict(record)}) + "\n" for record in records)
        path.write_text("".join(lines))
        start = time.process_time()
        read = read_journal(path)
        lap(f"reading a journal of {path.stat().st_size / 1e6:.1f} MB")
        replay_journal(read, simulated_controller(curves, sweep), path)
        lap("the same decisions once more")
    make_ledger(records, folds)
    lap("the ledger")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.table(
        f"{configurations} configurations, {folds} folds, {slots} at a time; {memory:.0f} MB of memory in all",
        ["work", "CPU-seconds"],
        rows,
    )


def replay(settings: Settings) -> None:
    """Simulate sweeps over the recorded curves in other orders."""
    recorded = Curves(**json.loads(_RECORDED.read_text())["curves"])
    config = RunConfig(
        data=DataConfig(folds=len(recorded.auc[0])),
        schedule=ScheduleConfig(epochs=settings.epochs, patience=settings.epochs),
    )
    results: dict[str, list[SimulatedSweep]] = {policy: [] for policy in _POLICIES}
    for number in range(settings.sweeps):
        order = np.random.default_rng([settings.seed, number]).permutation(len(recorded.auc))
        curves = Curves([recorded.auc[at] for at in order], [recorded.epoch_seconds[at] for at in order])
        for policy, chosen in _POLICIES.items():
            sweep = SweepConfig(run=config, trials=len(order), grace_epochs=settings.grace_epochs, **chosen)
            results[policy].append(simulate_sweep(curves, sweep, 2))
    _show(f"The recorded curves in {settings.sweeps} orders, 2 units at a time", results)


def _show(title: str, results: dict[str, list[SimulatedSweep]]) -> None:
    rows = []
    for policy, sweeps in results.items():
        cost, regret = [sweep.cost for sweep in sweeps], [sweep.regret for sweep in sweeps]
        within = sum(value <= 0.01 for value in regret) / len(regret)
        largest = f"{max(regret):.4f}"
        rows.append([policy, _interval(cost, 3), _interval(regret, 4), largest, f"{within:.1%}"])
    console.table(
        title, ["stopping", "cost share (95 % interval)", "regret (95 % interval)", "largest", "within 0.01"], rows
    )


def _interval(values: Sequence[float], digits: int) -> str:
    """The mean with its bootstrap interval."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(set(values)) == 1:
        return mean
    interval = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    return f"{mean} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def real(settings: Settings) -> None:
    """Run both sweeps by the command, and record the curves of the full one."""
    if settings.data is None or settings.weights is None:
        raise ConfigError("--data and --weights: the real sweeps need a prepared ISIC 2017 and the weights.")
    settings.runs.mkdir(parents=True, exist_ok=True)
    space = settings.runs / "sweep_space.py"
    space.write_text(_SPACE.format(weights=str(settings.weights.resolve())))
    full = _sweep(settings, space, "sweep-full", ["--scheduler", "none", "--fold-race", "none"])
    early = _sweep(settings, space, "sweep-early", ["--grace-epochs", str(settings.grace_epochs)])
    _record(full, settings)
    spent = [pd.read_parquet(folder / "ledger.parquet")["device_seconds"].sum() for folder in (full, early)]
    boards = [pd.read_csv(folder / "leaderboard.csv", index_col="configuration") for folder in (full, early)]
    chosen = int(boards[1].index[0])
    best, mean = boards[0]["mean_auc"].iloc[0], boards[0]["mean_auc"].loc[chosen]
    epochs = [board["epochs"] for board in boards]
    share = float((epochs[1] * boards[0]["device_hours"] / epochs[0]).sum() / boards[0]["device_hours"].sum())
    console.info(f"cost {spent[1]:.0f} of {spent[0]:.0f} device-seconds: {spent[1] / spent[0]:.1%}")
    console.info(
        f"at the full sweep's device-seconds per epoch of each configuration (the machine is shared): {share:.1%}"
    )
    console.info(
        f"chosen: {boards[1]['name'].iloc[0]}, full mean AUC {mean:.4f}; best {best:.4f}; regret {best - mean:.4f}"
    )


def _sweep(settings: Settings, space: Path, name: str, flags: list[str]) -> Path:
    command = [
        *("sweep", "--space", str(space), "--trials", "12"),
        *(
            "--data",
            str(settings.data),
            "--labels",
            "isic2017",
            "--folds",
            "3",
            "--augment",
            "light",
            "--warmup-epochs",
            "0.3",
        ),
        *(
            "--epochs",
            str(settings.epochs),
            "--patience",
            str(settings.epochs),
            "--image-size",
            str(settings.image_size),
        ),
        *("--gpus", str(settings.gpus), "--seed", str(settings.seed), "--runs", str(settings.runs), "--name", name),
    ]
    launch(*command, *flags)
    return settings.runs / name


def _record(full: Path, settings: Settings) -> None:
    auc: dict[tuple[int, int], list[float]] = {}
    seconds: dict[tuple[int, int], list[float]] = {}
    for record in read_journal(full / "journal.jsonl"):
        if isinstance(record, EpochFinished):
            auc.setdefault(record.trial, []).append(round(record.score, 6))
            seconds.setdefault(record.trial, []).append(record.seconds)
    configurations, folds = (1 + max(key[axis] for key in auc) for axis in (0, 1))
    curves = Curves(
        [[auc[number, fold] for fold in range(folds)] for number in range(configurations)],
        [
            [round(statistics.fmean(seconds[number, fold]), 3) for fold in range(folds)]
            for number in range(configurations)
        ],
    )
    about = {"commit": commit(), "machine": machine(), "image_size": settings.image_size, "seed": settings.seed}
    _RECORDED.write_text(json.dumps({"about": about, "curves": asdict(curves)}) + "\n")


if __name__ == "__main__":
    run_benchmark(main)
