"""The main command: check everything, train the folds side by side, compute the metrics from their predictions."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import (
    RunFolder,
    locate_run,
    open_run,
    refuse_other_run,
    remove_checkpoints,
    trainings,
)
from melanoma_dist.config.places import find_data
from melanoma_dist.config.run import RunConfig, differences
from melanoma_dist.data.audit.checks import fold_checks, manifest_checks, require
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.groups import groups_in_words
from melanoma_dist.data.manifest import JOINS, SYNTHETIC, Dataset, read_side_table
from melanoma_dist.data.node_copies import resolve_source
from melanoma_dist.display import Display
from melanoma_dist.distributed.preflight import (
    ModelSize,
    check_gpus_here,
    check_room,
    check_shared_memory,
    check_temporary,
)
from melanoma_dist.distributed.worker_pool import WorkerPool, layout_of, open_worker_pool
from melanoma_dist.distributed.worker_pool import plan as plan  # for sweeps
from melanoma_dist.distributed.worker_pool import start_ray as start_ray
from melanoma_dist.errors import ConfigError, MelanomaDistError
from melanoma_dist.mirror.run_mirror import fold_url, keep_mirrored, mirror_parts, restore
from melanoma_dist.signals import mark_saved, mark_started
from melanoma_dist.storage.locks import LOCK, lock_file
from melanoma_dist.tasks.run_task import RunTask, run_task
from melanoma_dist.train.events import EpochDone
from melanoma_dist.train.region import load_regions

if TYPE_CHECKING:  # PyTorch and scikit-learn take seconds to load
    from melanoma_dist.evaluate.tracking import RunTracker
    from melanoma_dist.train.events import Event
    from melanoma_dist.train.unit import Unit

_NOTHING_TRAINED = ", and nothing was trained"


def train(config: RunConfig) -> None:
    """Train the unfinished folds of a run, then write and print its out-of-fold metrics."""
    with console.phase("checking the data"):
        dataset = open_data(config)
        folds = plan_folds(config, dataset)
    folder = locate_run(config, dataset)
    busy = ConfigError.of("name", folder.path.name, f"another command is training {folder.path}", "Wait for it.")
    copies = mirror_parts(config, folder)
    restore(folder, copies, busy, console.info)
    if folder.finished():
        _begin(config, dataset, folder, folds)
        console.info("This run is finished. Its metrics:")
        show_again(folder, run_task(config))
        with lock_file(folder.path / LOCK, busy), keep_mirrored(copies, console.info):
            _remove_leftovers(config, folder)
            return
    refuse_other_run(folder, folds)  # before Ray starts, and again when the folder is opened
    untrained = _has_untrained_folds(config, folder)
    if untrained:
        check_gpus_here(config.hardware)
    from melanoma_dist.evaluate.tracking import check_tracker, open_tracker

    task = run_task(config)
    check_tracker(config)
    with ExitStack() as cluster:
        # Before the model is checked: meanwhile the workers load their libraries, which takes as long.
        pool = cluster.enter_context(open_worker_pool(config)) if untrained else None
        _check_model_and_machine(config, dataset, folder)
        _begin(config, dataset, folder, folds)
        with (
            lock_file(folder.path / LOCK, busy),
            keep_mirrored(copies, console.info),
            open_tracker(config, folder) as tracker,
        ):
            start = time.monotonic()
            with cluster.pop_all():  # it ends before another command may work on the folder
                _train_folds(config, dataset, folder, tracker, pool)
            with console.phase("metrics, intervals and report"):
                summary = task.finalize(config, dataset, folds, folder, time.monotonic() - start)
            _remove_leftovers(config, folder)
            tracker.finish(summary, folder.report)
    _show(task, summary, folder)


def _begin(config: RunConfig, dataset: Dataset, folder: RunFolder, folds: pd.DataFrame) -> None:
    open_run(folder, config, folds)
    mark_started()
    _introduce(config, folder)
    introduce_data(config, dataset, folds)


def open_data(config: RunConfig) -> Dataset:
    """Open the data set of a configuration and check it for leaks. Raises ConfigError or DataError if one fails."""
    dataset = open_dataset(config.data.data or find_data())
    require(manifest_checks(dataset.manifest, read_side_table(dataset, JOINS)), _NOTHING_TRAINED)
    run_task(config).check(dataset, config)
    return dataset


def plan_folds(config: RunConfig, dataset: Dataset) -> pd.DataFrame:
    """The folds of a configuration (``image_id, group, fold``), checked. Raises ConfigError or DataError."""
    task, images = run_task(config), dataset.manifest
    folds = task.make_folds(images, config)
    require(fold_checks(images, folds, config.data.folds, task.members(images, config)), _NOTHING_TRAINED)
    check_batch(config, folds)
    return folds


def check_batch(config: RunConfig, folds: pd.DataFrame) -> None:
    """Raise ConfigError unless every fold trains on at least one batch."""
    fewest = len(folds) - int(folds["fold"].value_counts().max())
    if config.input.batch_size > fewest:
        rule, most = f"a fold trains on only {fewest} images", f"At most --batch-size {fewest}."
        remedy = most if fewest > 1 else "Prepare more images."
        raise ConfigError.of("batch_size", config.input.batch_size, rule, remedy)


def _introduce(config: RunConfig, folder: RunFolder) -> None:
    chosen = {key: value for key, value in differences(config).items() if key not in ("name", "runs")}
    console.info(
        f"run {folder.path}: " + (", ".join(f"{key}={value}" for key, value in chosen.items()) or "all defaults")
    )


def introduce_data(config: RunConfig, dataset: Dataset, folds: pd.DataFrame) -> None:
    """Print the size of the data set and the folds."""
    images, groups = dataset.manifest, groups_in_words(dataset.manifest)
    excluded, count = int(images["split"].ne("train").sum()), folds["group"].nunique()
    unused = len(images) - excluded - len(folds)
    console.info(
        f"data {dataset.folder}: {len(folds)} images of {count} {groups} in {config.data.folds} folds"
        + (f", {excluded} excluded (holdouts and their groups)" if excluded else "")
        + (
            f", {unused} without a known {'mask' if config.task == 'segmentation' else 'label'} left out"
            if unused
            else ""
        )
        + "; checked: folds disjoint, complete, no lesion, patient or copy in two of them or in a holdout"
    )
    if regions := load_regions(config, dataset):
        console.info("regions: " + regions.sentence(images["image_id"].isin(folds["image_id"]).to_numpy()))
    for text in (*dataset.incomplete_tables, *([SYNTHETIC] if dataset.synthetic else [])):
        console.info(text)
    title, columns, rows = run_task(config).fold_table(images, folds, config)
    console.table(title, ["", "images", groups, *columns], rows)


def _has_untrained_folds(config: RunConfig, folder: RunFolder) -> bool:
    from melanoma_dist.train.unit import Unit

    return not all(
        Unit(seeded, fold, "", "", place).predictions.is_file()
        for seeded, place in trainings(config, folder)
        for fold in range(config.data.folds)
    )


def _train_folds(
    config: RunConfig, dataset: Dataset, folder: RunFolder, tracker: RunTracker, pool: WorkerPool | None
) -> None:
    """Train the folds without predictions. ``pool``: None if every fold has some."""
    from melanoma_dist.train.unit import Unit

    data = resolve_source(config.data.data, dataset.folder)
    units = [
        Unit(seeded, fold, data, dataset.fingerprint, place.resolve(), mirror=fold_url(config, folder, place, fold))
        for seeded, place in trainings(config, folder)
        for fold in range(config.data.folds)
    ]
    missing = [unit for unit in units if not unit.predictions.is_file()]
    _tell_of_earlier_command(len(units), missing)
    if not missing or pool is None:
        mark_saved()
        return
    from melanoma_dist.distributed.nodes import require_shared
    from melanoma_dist.distributed.units import train_units

    if len(pool.machines.cores) > 1:
        require_shared(folder.path.resolve())
    console.info(f"plan: {pool.layout.reason}")
    start, grace_s = time.monotonic(), config.fault_tolerance.grace_s
    with Display(units=len(missing)) as display:
        train_units(_Folds(missing, display, tracker), pool.layout, grace_s, pool.workers, len(missing))
    console.info(f"training: {console.duration(time.monotonic() - start)}")


def _tell_of_earlier_command(units: int, missing: list[Unit]) -> None:
    """Print how much an earlier command trained; each fold says itself where it resumes."""
    resumable = sum(any(unit.folder.glob("checkpoints/epoch-*")) for unit in missing)
    parts = [f"{units - len(missing)} of {units} folds are finished"] if len(missing) < units else []
    parts += [f"{resumable} of {units} folds continue from their last checkpoint"] if resumable else []
    if parts:
        console.info(f"resume: {', '.join(parts)}")


def _remove_leftovers(config: RunConfig, folder: RunFolder) -> None:
    """Remove checkpoints, and Ray Train's files of an attempt that was killed after the predictions were written."""
    from melanoma_dist.train.unit import SCRATCH

    for fold in folder.path.glob("**/fold-*"):
        remove_checkpoints(config, fold)
        for leftover in fold.glob(f"{SCRATCH}*"):
            shutil.rmtree(leftover, ignore_errors=True)


class _Folds:
    """The folds of a run as a work source. The first failure ends the run."""

    def __init__(self, units: list[Unit], display: Display, tracker: RunTracker) -> None:
        self._units, self._display, self._tracker = units, display, tracker

    def next_unit(self) -> Unit | None:
        return self._units.pop(0) if self._units else None

    def on_event(self, unit: Unit, event: Event) -> None:
        self._display.show(_title(unit), event)
        if isinstance(event, EpochDone):
            self._tracker.log_epoch(_title(unit), event)

    def on_exit(self, unit: Unit, seconds: float) -> None:
        """Nothing to do: the predictions of the fold are on the disk."""

    def on_failure(self, unit: Unit, seconds: float, error: MelanomaDistError) -> None:
        raise error

    def on_idle(self) -> None:
        self._display.refresh()


def _title(unit: Unit) -> str:
    """The name of a unit within its run."""
    repeated = unit.run.name == f"seed-{unit.config.seed}"
    return f"seed {unit.config.seed} fold {unit.fold}" if repeated else f"fold {unit.fold}"


def check_machine(config: RunConfig, units: int) -> None:
    """Raise ConfigError unless this machine can train so many units. With --address, the cluster is checked instead."""
    if config.hardware.address is not None:
        return
    import torch

    from melanoma_dist.distributed.cluster import cores
    from melanoma_dist.distributed.gpus import check_gpus
    from melanoma_dist.distributed.plan import Machines

    gpus = torch.cuda.device_count()
    check_gpus(config.hardware.gpus, gpus)
    check_temporary()
    layout = layout_of(config, Machines((gpus,), (cores(),)), units)
    if layout.gpu and layout.ranks > 1:
        check_shared_memory(layout.ranks * layout.side_by_side)


def _check_model_and_machine(config: RunConfig, dataset: Dataset, folder: RunFolder) -> None:
    """Build the model once and check the machine, so that errors come before anything is written."""
    with console.phase("loading PyTorch and timm"):
        from melanoma_dist.evaluate.holdout.contamination import refuse_weights_that_saw
        from melanoma_dist.models.backbones import published_input

    refuse_weights_that_saw(dataset, config.model)
    check_machine(config, config.repeats * config.data.folds)
    size = config.input.image_size or published_input(config.model.backbone).size
    with console.phase("building the model"):
        model = run_task(config).build_model(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    console.info(
        f"model: {config.model.backbone}, {count / 1e6:.1f} M parameters, {size}x{size} input, "
        f"weights {config.model.weights}"
    )
    check_room(config, ModelSize.of(model), folder.path)


def show_again(folder: RunFolder, task: RunTask) -> None:
    """Show the metrics of a finished run. Raises DataError for a summary that is corrupt or of another version."""
    _show(task, task.read_summary(folder), folder)


def _show(task: RunTask, summary: Any, folder: RunFolder) -> None:
    files = task.show(summary, folder)
    files |= {"predictions": folder.path / "predictions.csv", "metrics": folder.summary}
    console.places({**files, "models": folder.path / "model", "curves": f"tensorboard --logdir {folder.path.parent}"})
