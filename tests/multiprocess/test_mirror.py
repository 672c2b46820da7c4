"""A unit whose machine is lost resumes elsewhere from its mirror, byte for byte."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from melanoma_dist.artifacts.integrity import weights_sha256
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import RunRecord, current_environment, now, write_run_record
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.errors import ConfigError
from melanoma_dist.mirror.run_mirror import fold_url, keep_mirrored, mirror_parts, restore
from melanoma_dist.storage import atomic
from melanoma_dist.train.events import Note
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from ..unit.samples import config
from . import jobs

RUN = config(
    backbone="test_resnet", weights="none", image_size=32, batch_size=9, epochs=2, warmup_epochs=0.5, folds=3,
    labels="melanoma", ema_decay=0.9, optimizer="adam", lr=1e-3, gpus=0, patience=5,
)  # fmt: skip


def test_a_lost_machine_loses_nothing(data: Path, tmp_path: Path) -> None:
    mirror = f"file://{tmp_path}/bucket"
    reference, lost = (unit_in(tmp_path / name / "run", data, mirror) for name in ("whole", "lost"))
    jobs.whole_unit(World(), replace(reference, mirror=None))
    jobs.train_with_scheduler(World(), replace(lost, reports_to_scheduler=True), 1)  # it stops after its first epoch
    run = RunFolder(lost.run, {})
    parts = mirror_parts(replace(RUN, mirror=mirror), run)
    with keep_mirrored(parts[:1], print):
        pass
    assert not lost.predictions.exists()
    shutil.rmtree(lost.run)

    restore(run, parts, ConfigError("busy"), print)
    events = jobs.whole_unit(World(), lost)
    assert any("resumes after epoch 1" in event.text for event in events if isinstance(event, Note))
    expected = pd.read_parquet(reference.predictions)
    pd.testing.assert_frame_equal(pd.read_parquet(lost.predictions), expected, check_exact=True)

    finished = {path for path in lost.run.rglob("*") if path.is_file()}
    shutil.rmtree(lost.run)
    restore(run, parts, ConfigError("busy"), print)
    assert {path for path in lost.run.rglob("*") if path.is_file()} == finished
    assert weights_sha256(lost.folder, lost.model) == atomic.sha256(lost.model)


def unit_in(folder: Path, data: Path, mirror: str) -> Unit:
    dataset = load_dataset(data)
    folder.mkdir(parents=True)
    make_folds(dataset.manifest, LABEL_SETS["melanoma"], 3, 0).to_parquet(folder / "folds.parquet")
    write_run_record(folder / "record.json", RunRecord({}, current_environment(), now()))
    url = fold_url(replace(RUN, mirror=mirror), RunFolder(folder, {}), folder, 1)
    return Unit(RUN, 1, str(data), dataset.fingerprint, folder, mirror=url)
