"""A sweep as a story: check everything, conduct the race, tell what came of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
from ray.tune.search.variant_generator import generate_variants

from melanoma_dist.config import RunConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.display import Display
from melanoma_dist.dist.plan import Layout
from melanoma_dist.errors import ConfigError
from melanoma_dist.lock import alone_in
from melanoma_dist.log import say
from melanoma_dist.record import identity_of, made_with, now, read_identity, refuse_another, write_json
from melanoma_dist.run import conclude, introduce_data, open_data, plan, plan_folds
from melanoma_dist.sweep.agenda import Ground, SweepAgenda
from melanoma_dist.sweep.conductor import Conductor
from melanoma_dist.sweep.config import SweepConfig
from melanoma_dist.sweep.journal import Journal, retell, settle
from melanoma_dist.sweep.race import Race
from melanoma_dist.sweep.search import Stopper, build_searcher, grid_size
from melanoma_dist.sweep.space import Space, check_space, read_space

_SAMPLES = 100  # configurations tried out on paper before anything starts
_MANY = 10_000  # configurations, where only time limits them


def sweep(settings: SweepConfig) -> None:
    """Search until the trials or the time are spent, or go on with a search that was interrupted."""
    config = settings.run
    space = read_space(settings.space)
    check_space(space, config)
    trials = _trials(settings, space)
    dataset = open_data(config)
    folds = plan_folds(config, dataset)
    folder, identity = _place(settings, space, dataset)
    ground = Ground(config, dataset, folds, folder, tuple(space.domains))
    _check_samples(space, ground)
    _check_machine(config)
    _open(folder, identity, settings, space)
    say(f"sweep {folder}: {settings.searcher} over {', '.join(space.domains)}; {_told(trials)}, {settings.scheduler}")
    introduce_data(config, dataset, folds)
    with alone_in(folder, ConfigError.of("name", folder.name, f"another command works at {folder}", "Wait for it.")):
        journal = Journal(folder / "journal.jsonl")
        race = Race(config.data.folds, settings.fold_race)
        conductor = Conductor(build_searcher(settings, space, config.seed), Stopper(settings), race, trials)
        retell(journal.records, conductor, folder / "journal.jsonl")
        settle(journal, conductor)
        conductor.trials = trials
        _conduct(settings, ground, conductor, journal)
        _conclude(ground, conductor, journal)


def _check_machine(config: RunConfig) -> None:
    if config.hardware.address is None:
        import torch

        from melanoma_dist.dist.cluster import check_gpus

        check_gpus(config.hardware.gpus, torch.cuda.device_count())


def _conclude(ground: Ground, conductor: Conductor, journal: Journal) -> None:
    from melanoma_dist.sweep.outcome import Outcome

    Outcome(ground, conductor, journal).conclude(conclude)


def _conduct(settings: SweepConfig, ground: Ground, conductor: Conductor, journal: Journal) -> None:
    # Imported here, when everything cheap has been checked: PyTorch takes seconds to load.
    from melanoma_dist.dist.cluster import joined
    from melanoma_dist.dist.nodes import require_shared
    from melanoma_dist.dist.units import train_units
    from melanoma_dist.sweep.outcome import Outcome

    if journal.records:
        say(f"goes on: {len(conductor.values)} configurations begun, {len(conductor.running)} units in training")
    if conductor.over():
        return
    budget = settings.budget_seconds()
    outcome = Outcome(ground, conductor, journal)
    with joined(settings.run.hardware) as machines:
        if len(machines.cores) > 1:
            require_shared(ground.folder)
        layout = plan(settings.run, machines, conductor.trials or _MANY)
        _require_same_ranks(journal, conductor, layout)
        devices = _devices(layout)
        journal.write(
            "session", trials=conductor.trials, **devices, ranks=layout.ranks, side_by_side=layout.side_by_side
        )
        with Display() as display:
            deadline = None if budget is None else time.monotonic() + budget
            train_units(SweepAgenda(ground, conductor, journal, display, deadline, outcome.update), layout)


def _require_same_ranks(journal: Journal, conductor: Conductor, layout: Layout) -> None:
    """Units in training go on as they began. Raises ConfigError where they would have other ranks."""
    sessions = [record for record in journal.records if record["what"] == "session"]
    if conductor.running and sessions and sessions[-1]["ranks"] != layout.ranks:
        rule = f"{len(conductor.running)} units of this sweep are in training on {sessions[-1]['ranks']} ranks each"
        flag = "gpus_per_unit" if layout.gpu else "ranks_per_unit"
        raise ConfigError.of(flag, layout.ranks, rule, "Give that number, or another --name.")


def _devices(layout: Layout) -> dict[str, object]:
    if layout.gpu:
        return {"device": "GPU", "per_unit": layout.ranks * layout.gpu_share}
    return {"device": "CPU core", "per_unit": layout.ranks * layout.cores}


def _trials(settings: SweepConfig, space: Space) -> int | None:
    """How many configurations to try. Raises ConfigError where nothing would end the sweep."""
    if settings.searcher == "grid":
        size = grid_size(space)
        return size if settings.trials is None else min(size, settings.trials)
    if settings.trials is None and settings.time_budget is None:
        raise ConfigError("--trials: give the number of configurations to try, or --time-budget, or both.")
    return settings.trials


def _told(trials: int | None) -> str:
    return "no limit but the time" if trials is None else f"{trials} configurations"


def _check_samples(space: Space, ground: Ground) -> None:
    """Try configurations out on paper. Raises ConfigError for values that do not go together, or unknown backbones."""
    from melanoma_dist.models.backbones import check_backbone

    state = np.random.RandomState(0)
    backbones = set()
    drawn = 0
    while drawn < _SAMPLES:
        for _, values in generate_variants(dict(space.domains), random_state=state):
            drawn += 1
            active = space.active(ground.config, values)
            try:
                model = ground.configured(drawn, active).model
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
        shutil.copyfile(space.path, folder / "space.py")
        write_json(record, {"identity": identity, "made_with": made_with(), "begun": now()})
    except OSError as error:
        rule = f"the sweep's folder cannot be written ({error.strerror or error})"
        raise ConfigError.of("runs", settings.run.runs, rule, "Name a folder that can be.") from error
