"""A sweep as a story: check everything, conduct the race, tell what came of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import (
    identity_of,
    made_with,
    now,
    read_identity,
    refuse_another,
    refuse_other_makers,
    write_json,
)
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.display import Display
from melanoma_dist.distributed.plan import Layout, Machines, capacity
from melanoma_dist.distributed.preflight import ModelSize, check_room
from melanoma_dist.errors import ConfigError
from melanoma_dist.run import check_machine, introduce_data, open_data, plan, plan_folds
from melanoma_dist.signals import mark_saved
from melanoma_dist.storage import atomic
from melanoma_dist.storage.locks import LOCK, lock_file
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal, replay, settle
from melanoma_dist.sweep.racing import FoldRacing
from melanoma_dist.sweep.search import Stopper, build_searcher, grid_size, samples
from melanoma_dist.sweep.space import Space, check_space, check_value, read_space
from melanoma_dist.sweep.work_source import SweepContext, SweepWorkSource

_SAMPLES = 100  # configurations tried out on paper before anything starts
_MANY = 10_000  # configurations, where only time limits them


def sweep(settings: SweepConfig) -> None:
    """Search until the trials or the time are spent, or go on with a search that was interrupted."""
    config = settings.run
    if config.mirror is not None:
        raise ConfigError.of("mirror", config.mirror, "a sweep is not mirrored", "Leave it out.")
    space = read_space(settings.space)
    check_space(space, config)
    trials = _trials(settings, space)
    dataset = open_data(config)
    folds = plan_folds(config, dataset)
    folder, identity = _place(settings, space, dataset)
    ground = SweepContext(config, dataset, folds, folder, tuple(space.domains))
    _check_samples(space, ground)
    build_searcher(settings, space, config.seed).suggest()  # what it cannot search is told before anything is written
    check_machine(config, trials or _MANY)
    _check_room(config, space, folder)
    _open(folder, identity, settings, space)
    console.info(
        f"sweep {folder}: {settings.searcher} over {', '.join(space.domains)}; {_told(trials)}, {settings.scheduler}"
    )
    introduce_data(config, dataset, folds)
    busy = ConfigError.of("name", folder.name, f"another command works at {folder}", "Wait for it.")
    with lock_file(folder / LOCK, busy):
        journal = Journal(folder / "journal.jsonl")
        race = FoldRacing(config.data.folds, settings.fold_race)
        conductor = Controller(build_searcher(settings, space, config.seed), Stopper(settings), race, trials)
        replay(journal.records, conductor, folder / "journal.jsonl")
        settle(journal, conductor)
        conductor.trials = trials
        _conduct(settings, ground, conductor, journal)
        _conclude(ground, conductor, journal)


def _check_room(config: RunConfig, space: Space, folder: Path) -> None:
    """Raise ConfigError unless there is room for one configuration; where backbones vary, none is told in advance."""
    if "model.backbone" in space.domains:
        return
    from melanoma_dist.models.backbones import published_input
    from melanoma_dist.models.classifier import build_classifier

    size = config.input.image_size or published_input(config.model.backbone).size
    model = build_classifier(config.model, size, len(LABEL_SETS[config.data.labels]), config.seed, "none")
    check_room(config, ModelSize.of(model), folder)


def _conclude(ground: SweepContext, conductor: Controller, journal: Journal) -> None:
    from melanoma_dist.evaluate.finalize import finalize
    from melanoma_dist.sweep.outcome import Outcome

    Outcome(ground, conductor, journal).finalize(finalize)


def _conduct(settings: SweepConfig, ground: SweepContext, conductor: Controller, journal: Journal) -> None:
    # Imported here, when everything cheap has been checked: PyTorch takes seconds to load.
    from melanoma_dist.distributed.cluster import joined
    from melanoma_dist.distributed.nodes import require_shared
    from melanoma_dist.distributed.units import train_units
    from melanoma_dist.sweep.outcome import Outcome

    if journal.records:
        console.info(
            f"goes on: {len(conductor.values)} configurations begun, {len(conductor.running)} units in training"
        )
    if conductor.over():
        mark_saved()
        return
    # Here, and not by the first unit: what a unit refuses takes its configuration out.
    refuse_other_makers(ground.folder, ground.folder / "sweep.json", settings.run.fault_tolerance.accept_changes)
    budget = settings.budget_seconds()
    outcome = Outcome(ground, conductor, journal)
    config = _as_begun(settings.run, journal, conductor)
    with joined(config.hardware) as machines:
        if len(machines.cores) > 1:
            require_shared(ground.folder)
        layout = _on_cores_as_begun(plan(config, machines, conductor.trials or _MANY), machines, journal, conductor)
        journal.write("session", trials=conductor.trials, **_devices(layout), side_by_side=layout.side_by_side)
        with Display() as display:
            deadline = None if budget is None else time.monotonic() + budget
            agenda = SweepWorkSource(ground, conductor, journal, display, deadline, outcome.update)
            train_units(agenda, layout, config.fault_tolerance.grace_s)
    if not conductor.over():
        spent = "" if budget is None else "The time budget is spent. "
        console.info(f"{spent}{len(conductor.running)} units pause; the same command goes on from here.")


def _as_begun(config: RunConfig, journal: Journal, conductor: Controller) -> RunConfig:
    """With the ranks on which units in training began, unless others are asked for. Raises ConfigError for those."""
    last, hardware = _last_session(journal), config.hardware
    if not conductor.running or last is None:
        return config
    units = f"{len(conductor.running)} units of this sweep are in training"
    on_gpus = last["device"] == "GPU"
    if on_gpus != (hardware.gpus != 0):
        raise ConfigError.of("gpus", hardware.gpus, f"{units} on {'GPUs' if on_gpus else 'the CPU'}", "Go on there.")
    flag = "gpus_per_unit" if on_gpus else "ranks_per_unit"
    began, asked = last["share"] if last["share"] < 1 else last["ranks"], getattr(hardware, flag)
    if asked not in (None, began):
        raise ConfigError.of(flag, asked, f"{units} with {began:g} each", f"Leave the flag out, or give {began:g}.")
    return with_values(config, {f"hardware.{flag}": began})


def _on_cores_as_begun(layout: Layout, machines: Machines, journal: Journal, conductor: Controller) -> Layout:
    """On the CPU, with the cores per rank with which units in training began: on others, numbers round otherwise."""
    last = _last_session(journal)
    if layout.gpu or not conductor.running or last is None:
        return layout
    began = replace(layout, cores=last["per_unit"] / last["ranks"])
    room = capacity(machines, began)
    if began.threads == layout.threads or room == 0:  # without room for them, they say themselves what is wrong
        return layout
    console.info(f"{began.threads} threads for each rank, with which {len(conductor.running)} units in training began")
    return replace(began, side_by_side=min(layout.side_by_side, room))


def _last_session(journal: Journal) -> dict[str, Any] | None:
    return next((record for record in reversed(journal.records) if record["what"] == "session"), None)


def _devices(layout: Layout) -> dict[str, object]:
    device, per_rank = ("GPU", layout.gpu_share) if layout.gpu else ("CPU core", layout.cores)
    units = {"per_unit": layout.ranks * per_rank, "ranks": layout.ranks, "share": layout.gpu_share}
    return {"device": device, **units}


def _trials(settings: SweepConfig, space: Space) -> int | None:
    """How many configurations to try. Raises ConfigError where nothing would end the sweep."""
    if settings.searcher == "grid":
        size = grid_size(settings.run, space)
        return size if settings.trials is None else min(size, settings.trials)
    if settings.trials is None and settings.time_budget is None:
        raise ConfigError("--trials: give the number of configurations to try, or --time-budget, or both.")
    return settings.trials


def _told(trials: int | None) -> str:
    return "no limit but the time" if trials is None else f"at most {trials} configurations"


def _check_samples(space: Space, ground: SweepContext) -> None:
    """Try configurations out on paper. Raises ConfigError for values that do not go together, or unknown backbones."""
    from melanoma_dist.models.backbones import check_backbone

    backbones = set()
    for number, values in zip(range(_SAMPLES), samples(space), strict=False):
        active = space.active(ground.config, values)
        for key, value in active.items():
            check_value(space, ground.config, key, value)  # what a function of the space gave
        try:
            model = ground.configured(number, active).model
        except ConfigError as error:
            raise space.error(str(active), str(error).rstrip(".")) from None
        backbones.add((model.backbone, model.weights))
    for backbone, weights in sorted(backbones):
        check_backbone(backbone, weights)


def _place(settings: SweepConfig, space: Space, dataset: Dataset) -> tuple[Path, dict[str, object]]:
    """The sweep's folder, and what it must hold to be this sweep."""
    config = settings.run
    identity = {**identity_of(config, dataset), **settings.policy(), "space": space.digest}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return config.runs / (config.name or f"sweep-{space.path.stem}-{digest}"), identity


def _open(folder: Path, identity: dict[str, object], settings: SweepConfig, space: Space) -> None:
    record = folder / "sweep.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if record.is_file():
            refuse_another(folder, read_identity(record), identity)
            return
        if any(folder.iterdir()):
            raise ConfigError.of("name", folder.name, f"{folder} holds something else", "Choose another name.")
        atomic.write_file(folder / "space.py", lambda aside: shutil.copyfile(space.path, aside))
        write_json(record, {"identity": identity, "made_with": made_with(), "begun": now()})
    except OSError as error:
        rule = f"the sweep's folder cannot be written ({error.strerror or error})"
        raise ConfigError.of("runs", settings.run.runs, rule, "Name a folder that can be.") from error
