"""The sweep command: check everything, train units, write the results."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import (
    RunFolder,
    digest_of,
    identity_of,
    locate_run,
    refuse_another,
    refuse_other_environment,
)
from melanoma_dist.artifacts.run_record import (
    Identity,
    RunRecord,
    current_environment,
    now,
    read_run_record,
    write_run_record,
)
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.display import Display
from melanoma_dist.distributed.plan import Layout, Machines, capacity
from melanoma_dist.distributed.preflight import ModelSize, check_room
from melanoma_dist.errors import ConfigError
from melanoma_dist.mirror.run_mirror import MirrorPart, mirror_parts, restore
from melanoma_dist.mirror.sweep_mirror import keep_sweep_mirrored, sweep_part
from melanoma_dist.models.names import check_name
from melanoma_dist.run import check_machine, introduce_data, open_data, plan, plan_folds, start_ray
from melanoma_dist.signals import mark_saved, mark_started
from melanoma_dist.storage import atomic
from melanoma_dist.storage.locks import LOCK, lock_file
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.experiment import EXPERIMENT
from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.journal import Journal, SessionStarted, timestamp
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.racing import FoldRacing
from melanoma_dist.sweep.replay import add_missing_records, replay
from melanoma_dist.sweep.search import Stopper, build_searcher, grid_size, samples
from melanoma_dist.sweep.space import Space, check_space, check_value, read_space
from melanoma_dist.sweep.work_source import SweepContext, SweepWorkSource
from melanoma_dist.tasks.run_task import run_task

_SAMPLES = 100  # configurations drawn and checked before anything starts
_MANY = 10_000  # configurations assumed where only the time budget limits them


def sweep(settings: SweepConfig) -> Path:
    """Search until the trials or the time budget are spent; resume an interrupted search. Returns its folder."""
    config = settings.run
    settings.require_complete()
    if config.track != "none":
        from melanoma_dist.evaluate.tracking import check_tracker

        check_tracker(config)
    space = read_space(settings.space)
    check_space(space, config)
    trials = _trials(settings, space)
    with console.phase("checking the data"):
        dataset = open_data(config)
        folds = plan_folds(config, dataset)
    folder, identity = _locate(settings, space, dataset)
    context = SweepContext(config, dataset, folds, folder, space)
    with console.phase("checking the search space"):
        _check_samples(space, context)
    _check_search(settings, space)
    check_machine(config, trials or _MANY)
    _check_room(config, space, folder)
    busy = ConfigError.of("name", folder.name, f"another command works on {folder}", "Wait for it.")
    copies = sweep_part(config.mirror, folder)
    restore(RunFolder(folder, identity), copies, busy, console.info)
    _open(folder, identity, settings, space)
    mark_started()
    limit = "no limit but the time" if trials is None else f"at most {trials} configuration{'' if trials == 1 else 's'}"
    limit = f"a population of {trials} on fold 0 alone" if settings.has_population else limit
    console.info(f"sweep {folder}: {settings.searcher} over {', '.join(space.domains)}; {limit}, {settings.scheduler}")
    introduce_data(config, dataset, folds)
    with lock_file(folder / LOCK, busy):
        # Imported after all cheap checks: PyTorch takes seconds to load.
        from melanoma_dist.sweep.outcome import Outcome

        journal = Journal(folder / "journal.jsonl")
        controller = _controller_after(journal, settings, context, trials)
        outcome = Outcome(context, controller, journal)
        _restore_folds(context, controller, busy)

        def folds_of_runs() -> list[MirrorPart]:
            return [part for _, _, parts in _mirrored_runs(context, controller) for part in parts]

        with keep_sweep_mirrored(copies, folds_of_runs, console.info) as update_mirror:
            try:
                _train(settings, context, controller, journal, outcome.update, update_mirror)
            except KeyboardInterrupt:
                outcome.write_tables()
                raise
            outcome.finalize(run_task(config).finalize)
    return folder


def _controller_after(journal: Journal, settings: SweepConfig, context: SweepContext, trials: int | None) -> Controller:
    """The controller where the journal ends. Records that a kill kept from the journal are added to it."""
    racing = FoldRacing(settings.folds, settings.fold_race, settings.run.score_name)
    searcher = build_searcher(settings, context.space, settings.run.seed)
    waiting = Halving.of(settings) or Population.of(settings, context.space)
    controller = Controller(searcher, Stopper(settings), waiting, racing, trials)
    replay(journal.records, controller, context.folder / "journal.jsonl")
    add_missing_records(journal, controller)
    controller.trials = trials  # replay set those of earlier commands
    return controller


def _mirrored_runs(context: SweepContext, controller: Controller) -> Iterator[tuple[int, RunFolder, list[MirrorPart]]]:
    """The number and the folder of each configuration, and the parts of its folds; nothing without a mirror."""
    for number, values in enumerate(controller.values if context.config.mirror else ()):
        try:
            config = context.configured(number, values)
        except ConfigError:  # its values do not fit together: it has no folder
            continue
        run = locate_run(config, context.dataset)
        yield number, run, mirror_parts(config, run)[1:]


def _restore_folds(context: SweepContext, controller: Controller, busy: ConfigError) -> None:
    """Restore the folds of configurations that race or are complete. The others are in the journal."""
    for number, run, parts in _mirrored_runs(context, controller):
        if controller.racing.states[number].stop_reason is None:
            restore(run, parts, busy, console.info)


def _check_room(config: RunConfig, space: Space, folder: Path) -> None:
    """Raise ConfigError unless one configuration fits; where backbones vary, its size is unknown and not checked."""
    if "model.backbone" in space.domains:
        return
    model = run_task(config).build_model(with_values(config, {"model.weights": "none"}))
    check_room(config, ModelSize.of(model), folder)


def _train(
    settings: SweepConfig,
    context: SweepContext,
    controller: Controller,
    journal: Journal,
    on_end: Callable[[int], None],
    on_change: Callable[[], None],
) -> None:
    import ray

    from melanoma_dist.distributed.nodes import require_shared
    from melanoma_dist.distributed.units import train_units
    from melanoma_dist.sweep.tune_workers import TuneWorkers

    if journal.records:
        console.info(
            f"resume: configurations started: {len(controller.values)}; units in training: {len(controller.running)}"
        )
    if controller.is_finished():
        mark_saved()
        return
    # Checked here and not by the first unit: a refusal there would fail its configuration.
    refuse_other_environment(context.folder / "sweep.json", settings.run.fault_tolerance.accept_changes)
    budget = settings.budget_seconds()
    config = _keep_ranks(settings.run, journal, controller)
    with start_ray(config.hardware) as machines:
        if len(machines.cores) > 1:
            require_shared(context.folder)
        layout = _keep_threads(plan(config, machines, controller.trials or _MANY), machines, journal, controller)
        journal.write(_session(layout, controller.trials))
        with Display() as display:
            deadline = None if budget is None else time.monotonic() + budget
            source = SweepWorkSource(context, controller, journal, display, deadline, on_end, on_change)
            folder = context.folder / EXPERIMENT
            workers = TuneWorkers(layout, folder, source.describe) if ray.is_initialized() else None
            train_units(source, layout, config.fault_tolerance.grace_s, workers)
    if not controller.is_finished():
        spent = "" if budget is None else "The time budget is spent. "
        console.info(f"{spent}Units that are paused: {len(controller.running)}. Re-run the same command to resume.")


def _keep_ranks(config: RunConfig, journal: Journal, controller: Controller) -> RunConfig:
    """Keep the ranks on which units in training started. Raises ConfigError if the flags ask for others."""
    last, hardware = _last_session(journal), config.hardware
    if not controller.running or last is None:
        return config
    units = f"{len(controller.running)} units of this sweep are in training"
    on_gpus = last.device == "GPU"
    if on_gpus != (hardware.gpus != 0):
        device = "GPUs" if on_gpus else "the CPU"
        raise ConfigError.of("gpus", hardware.gpus, f"{units} on {device}", "Resume there.")
    flag = "gpus_per_unit" if on_gpus else "ranks_per_unit"
    before, now = last.share if last.share < 1 else last.ranks, getattr(hardware, flag)
    if now not in (None, before):
        raise ConfigError.of(flag, now, f"{units} with {before:g} each", f"Leave the flag out, or type {before:g}.")
    return with_values(config, {f"hardware.{flag}": before})


def _keep_threads(layout: Layout, machines: Machines, journal: Journal, controller: Controller) -> Layout:
    """On the CPU, keep the cores per rank with which units in training started: other threads round differently."""
    last = _last_session(journal)
    if layout.gpu or not controller.running or last is None:
        return layout
    before = replace(layout, cores=last.per_unit / last.ranks)
    room = capacity(machines, before)
    if before.threads == layout.threads or room == 0:  # without room, the units themselves refuse
        return layout
    console.info(f"{before.threads} threads for each rank, as {len(controller.running)} units in training started with")
    return replace(before, side_by_side=min(layout.side_by_side, room))


def _last_session(journal: Journal) -> SessionStarted | None:
    return next((record for record in reversed(journal.records) if isinstance(record, SessionStarted)), None)


def _session(layout: Layout, trials: int | None) -> SessionStarted:
    device, per_rank = ("GPU", layout.gpu_share) if layout.gpu else ("CPU core", layout.cores)
    share, side_by_side = layout.gpu_share, layout.side_by_side
    return SessionStarted(timestamp(), trials, device, layout.ranks * per_rank, layout.ranks, share, side_by_side)


def _trials(settings: SweepConfig, space: Space) -> int | None:
    """How many configurations to try; None for no limit. Raises ConfigError if nothing would end the sweep."""
    if settings.searcher == "grid":
        size = grid_size(settings.run, space)
        return size if settings.trials is None else min(size, settings.trials)
    return settings.trials


def _check_search(settings: SweepConfig, space: Space) -> None:
    """Raise ConfigError for a space that cannot be searched so, before anything is written."""
    searcher, population = build_searcher(settings, space, settings.run.seed), Population.of(settings, space)
    first = searcher.suggest()
    for number in range(1, settings.trials or 1) if population is not None else ():
        if first is None or searcher.suggest() is None:
            rule = f"a population starts with different configurations, and the space has only {number}"
            raise ConfigError.of("trials", settings.trials, rule, "Type fewer, or vary more fields.")


def _check_samples(space: Space, context: SweepContext) -> None:
    """Draw and check configurations. Raises ConfigError for an unknown backbone, or values that do not fit together."""
    from melanoma_dist.evaluate.holdout.contamination import refuse_weights_that_saw

    backbones = set()
    for number, values in zip(range(_SAMPLES), samples(space), strict=False):
        active = space.active(context.config, values)
        for key, value in active.items():
            check_value(space, context.config, key, value)  # a function of the space may return anything
        try:
            model = context.configured(number, active).model
        except ConfigError as error:
            raise space.error(str(active), str(error).rstrip(".")) from None
        backbones.add((model.backbone, model.weights))
    for backbone, weights in sorted(backbones):
        check_name(backbone, weights)
    from melanoma_dist.models.backbones import check_backbone  # timm takes seconds to load

    for backbone, weights in sorted(backbones):
        check_backbone(backbone, weights)
    for backbone, weights in sorted(backbones):
        refuse_weights_that_saw(context.dataset, ModelConfig(backbone, weights))


def _locate(settings: SweepConfig, space: Space, dataset: Dataset) -> tuple[Path, Identity]:
    """The folder of the sweep, and the identity that ``sweep.json`` must hold."""
    config = settings.run
    identity: Identity = {**identity_of(config, dataset), **settings.policy(), "space": space.digest}
    return config.runs / (config.name or f"sweep-{space.path.stem}-{digest_of(identity)}"), identity


def _open(folder: Path, identity: Identity, settings: SweepConfig, space: Space) -> None:
    record = folder / "sweep.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if record.is_file():
            refuse_another(folder, read_run_record(record).identity, identity)
            return
        if any(folder.iterdir()):
            raise ConfigError.of("name", folder.name, f"{folder} holds other files", "Choose another name.")
        atomic.write_file(folder / "space.py", lambda aside: shutil.copyfile(space.path, aside))
        write_run_record(record, RunRecord(identity, current_environment(), now()))
    except OSError as error:
        rule = f"the sweep's folder cannot be written ({error.strerror or error})"
        raise ConfigError.of("runs", settings.run.runs, rule, "Name a writable folder.") from error
