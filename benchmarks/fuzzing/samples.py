"""Create the samples: real files of every format that the program reads, written by the program itself."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from fuzzing.files import BACKBONE, HUB, METADATA, RUN, TABLE
from melanoma_dist.app.export.hub import write_hub
from melanoma_dist.artifacts.run_folder import locate_run, open_run
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.run import DataConfig, InputConfig, RunConfig, ScheduleConfig
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.download.partial_file import FileVersion
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.evaluate.finalize import finalize
from melanoma_dist.evaluate.holdout.command import evaluate
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.models.backbones import build_trunk
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

_YEAR, _FOLDS, _IMAGES = "2019", 2, 72


def make_samples(folder: Path) -> None:
    """Fill an empty ``folder`` with tables, images, a data set, runs, an evaluation, an export, and the rest."""
    torch.set_num_threads(1)
    _raw(folder / "raw")
    dataset = prepare(Request(folder / "raw", (_YEAR,), size=48, synthetic=True, holdout=0.3), folder / "data")
    _run(dataset, folder / "runs", "first")
    evaluate(EvaluateConfig(folder / "runs" / "first", holdout="holdout", gpus=0, decode_threads=1))
    trained = open_trained_run(folder / RUN)
    (folder / HUB).mkdir()
    write_hub(trained, Ensemble.of(trained, World()), folder / HUB)
    for large in (*folder.rglob("checkpoints/*/*.pt"), *folder.rglob("checkpoints/*/*.safetensors")):
        large.unlink()  # no reader of a finished run opens them, and samples are copied often
    shutil.copytree(folder / "runs" / "first", folder / "runs" / "second")
    _files(folder / "files")


def _raw(raw: Path) -> None:
    images = raw / _YEAR / "ISIC_2019_Training_Input"
    images.mkdir(parents=True)
    labels, about = [",".join(("image", *DIAGNOSES, "UNK"))], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number in range(_IMAGES):
        rng = np.random.default_rng(number)
        kind = "MEL" if number % 3 == 0 else DIAGNOSES[1 + number % 7]
        name = f"ISIC_{number:07d}"
        Image.fromarray(photograph(rng, draw_lesion(rng, kind))).resize((64, 48)).save(images / f"{name}.jpg")
        labels.append(",".join((name, *(f"{float(kind == label)}" for label in (*DIAGNOSES, "UNK")))))
        about.append(f"{name},{30 + number},anterior torso,LESION_{number - number % 10 // 9:04d},female")
    (raw / _YEAR / TABLE).write_text("\n".join(labels) + "\n")
    (raw / _YEAR / METADATA).write_text("\n".join(about) + "\n")


def _run(dataset: Dataset, runs: Path, name: str) -> None:
    """Train a run without Ray, as a rank does."""
    config = RunConfig(
        name=name,
        runs=runs,
        data=DataConfig(data=str(dataset.folder), labels="isic2017", folds=_FOLDS),
        input=InputConfig(image_size=32, batch_size=8),
        model=ModelConfig(backbone=BACKBONE, weights="none"),
        schedule=ScheduleConfig(epochs=1),
        hardware=HardwareConfig(gpus=0),
    )
    folds = make_folds(dataset.manifest, config.data.label_set(), _FOLDS, config.seed)
    folder = locate_run(config, dataset)
    open_run(folder, config, folds)
    for fold in range(_FOLDS):
        unit = Unit(config, fold, str(dataset.folder), dataset.fingerprint, folder.path)
        train_unit(unit, World(), lambda event: None)
    finalize(config, open_dataset(str(dataset.folder)), folds, folder, 1.0)


def _files(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    picture = Image.fromarray(photograph(rng, draw_lesion(rng, "MEL"))).resize((64, 48))
    picture.save(folder / "photo.jpg", progressive=True, exif=_exif())
    picture.save(folder / "photo.png")
    Image.fromarray(rng.integers(0, 65535, (48, 64), dtype=np.uint16)).save(folder / "deep.png")
    Image.new("1", (64, 48)).save(folder / "mask.png")
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.write(folder / "photo.jpg", f"Data/ISIC_{number:07d}.jpg")
    weights = build_trunk(ModelConfig(BACKBONE, "none"), 32).state_dict()
    save_file(weights, folder / "weights.safetensors")
    torch.save(weights, folder / "weights.pt")
    version = FileVersion("https://example.org/2019/Data.zip", '"tag"', "Mon, 01 Jan 2024 00:00:00 GMT", 9)
    (folder / "Data.zip.part.json").write_text(json.dumps(asdict(version)))
    (folder / "Data.zip.part").write_bytes(b"PK")
    accepted = {_YEAR: {"licence": "CC BY-NC 4.0", "url": "x", "accepted": "2024-01-01T00:00:00+00:00"}}
    (folder / "licenses.json").write_text(json.dumps(accepted))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
