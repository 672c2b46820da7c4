"""Export runs of real backbones to ONNX: differences from `predict`, sizes, and latency against eager PyTorch.

    python benchmarks/export.py --run runs/NAME
    MELANOMA_DIST_ISIC=... python benchmarks/export.py --run runs/NAME --backbones none --photographs 100

``--run`` is a finished run with two folds, such as a short one on the demo data. For each backbone it gives folds,
decision rules and gallery; the weights are random, with the statistics of batch norms from one training pass and
logits that differ between images. Untrained networks of that depth amplify rounding more than trained ones.
``--photographs`` exports the run itself and compares real photographs, from their files to probabilities: prepared as
predict.py prepares them, and without that preparation.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
import tyro
import yaml
from conditions import commit, machine, real_images, run_benchmark
from PIL import Image, ImageOps
from safetensors.torch import save_file

import melanoma_dist
from melanoma_dist import console
from melanoma_dist.app.export.command import export
from melanoma_dist.app.export.graph import Calibration, ExportedGraph
from melanoma_dist.app.export.onnx_file import open_onnx
from melanoma_dist.app.export.parity import parity_images
from melanoma_dist.artifacts.integrity import write_weights_hash
from melanoma_dist.artifacts.run_record import RECORD, read_run_record, write_run_record
from melanoma_dist.config.export import ExportConfig
from melanoma_dist.config.run import nested, with_values
from melanoma_dist.data.photo import prepare_bytes
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.models.classifier import Classifier, build_classifier
from melanoma_dist.storage.atomic import sha256
from melanoma_dist.train.fold_data import input_format_of

Pixels = npt.NDArray[np.uint8]
_HEADER = ("backbone", "side", "parameters", "a fold", "export s", "largest difference", "calls that differ",
           "ONNX Runtime ms", "PyTorch ms")  # fmt: skip
_SPREAD = 1.5  # standard deviation of the logits of a random model
_VIEW = (1, 512, 683, 3)  # a photograph as most data sets store it


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark."""

    run: Path
    """A finished run."""
    backbones: tuple[str, ...] = ("resnet152v2", "inceptionv3", "densenet201", "inceptionresnetv2")
    """Backbones with random weights, at their own input sizes; none for none."""
    photographs: int = 0
    """Real photographs that compare the run itself; 0 leaves it out."""
    repeats: int = 6
    """Of a latency. The fastest counts."""
    threads: int = 2
    """Of PyTorch and of ONNX Runtime."""


def main() -> None:
    sizes = tyro.cli(Sizes, description=__doc__)
    console.info(f"{machine()}; torch {torch.__version__}, timm {timm.__version__}; commit {commit()}")
    rows = [random_backbone(name, sizes) for name in sizes.backbones if name != "none"]
    if sizes.photographs:
        rows.append(trained_run(sizes))
    console.table("Export to ONNX", _HEADER, rows)


def random_backbone(backbone: str, sizes: Sizes) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(sizes.run, Path(folder) / "run"))
        replace_models(run, backbone)
        return measured(run, Path(folder) / "onnx", 1, sizes)


def trained_run(sizes: Sizes) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        row = measured(sizes.run, Path(folder) / "onnx", None, sizes)
        compare_photographs(sizes, Path(folder) / "onnx/ensemble.onnx")
        return row


def replace_models(run: Path, backbone: str) -> None:
    """Give a copied run the models of another backbone, with random weights and the backbone's own input size."""
    old = melanoma_dist.load_run(run)
    values: dict[str, Any] = {"model.backbone": backbone, "model.weights": "none", "input.image_size": None}
    config = with_values(old.config, values)
    (run / "config.yaml").write_text(yaml.safe_dump(nested(config)))
    record = read_run_record(run / RECORD)
    write_run_record(run / RECORD, replace(record, identity=config.identity() | {"data": old.fingerprint}))
    ensemble = Ensemble(run, config, old.fingerprint, old.decision_rules, old.image_size, one_process(0, None))
    photographs = Photographs.prepare([image.data for image in parity_images(old)], old.image_size)
    images = torch.cat([batch for batch, _ in ensemble.loader(photographs, len(photographs.rows))])
    for unit in ensemble.units:
        model = build_classifier(config.model, input_format_of(unit).size, len(old.labels), unit.fold)
        set_statistics(model, images)
        about = {"labels": ",".join(old.labels), "fold": str(unit.fold), "data": old.fingerprint}
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, unit.model, about)
        write_weights_hash(unit.folder, unit.model, sha256(unit.model))


def set_statistics(model: Classifier, images: torch.Tensor) -> None:
    """Set the statistics of all batch norms to those of the images, and spread the logits."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        model.train()(images)
        spread = model.eval()(images).std(0).mean()
        model.linear.weight.mul_(_SPREAD / spread)


def measured(run: Path, out: Path, tta: int | None, sizes: Sizes) -> list[str]:
    """Export a run and measure a fold's file with one image."""
    start = time.perf_counter()
    export(ExportConfig(run, "onnx", out, tta, sizes.threads))
    seconds = time.perf_counter() - start
    about = json.loads((out / "export.json").read_text())
    trained = melanoma_dist.load_run(run)
    files = about["parity"]["files"]
    model = trained.ensemble(threads=sizes.threads).fold_model(0)
    image = np.random.default_rng(0).integers(0, 256, _VIEW, dtype=np.uint8)
    answer = open_onnx(out / "fold-0.onnx", sizes.threads)
    return [
        about["backbone"],
        f"{about['image_size']}, {about['tta']} orientations",
        f"{sum(each.numel() for each in model.parameters()) / 1e6:.1f} M",
        console.size((out / "fold-0.onnx").stat().st_size),
        f"{seconds:.0f} for {about['folds']} folds and the ensemble",
        f"{max(each['difference'] for each in files):.1e}",
        str(sum(each["calls"] for each in files)),
        f"{fastest(lambda: answer(image), sizes.repeats):.0f}",
        f"{fastest(eager(trained, model, about['tta'], image), sizes.repeats):.0f}",
    ]


def eager(run: TrainedRun, model: Classifier, tta: int, image: Pixels) -> Callable[[], object]:
    """The same graph in eager PyTorch."""
    ensemble = run.ensemble()
    thresholds = run.decision_rules.thresholds(run.labels, run.config.threshold)
    calibration = Calibration(run.decision_rules, run.labels)
    graph = ExportedGraph([model], input_format_of(ensemble.units[0]), tta, calibration, thresholds).eval()

    def predict() -> object:
        with torch.inference_mode():
            return graph(torch.from_numpy(image))

    return predict


def fastest(action: Callable[[], object], repeats: int) -> float:
    """The shortest time of a call in ms, after one that does not count."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def compare_photographs(sizes: Sizes, file: Path) -> None:
    """Print how far the probabilities of real photographs are from those of `predict`, from their files on."""
    run = melanoma_dist.load_run(sizes.run)
    files = list(photographs(sizes.photographs))
    expected = run.ensemble(threads=sizes.threads).predict(files).probability
    answer = open_onnx(file, sizes.threads)
    ways: dict[str, Callable[[Path], Pixels]] = {
        "prepared as predict.py does": lambda path: prepared(path, run.image_size),
        "as they are": original,
    }
    rows = []
    for name, pixels in ways.items():
        differences = np.array([np.abs(answer(pixels(path)[None])[0][0] - expected[at]).max()
                                for at, path in enumerate(console.progress(files, len(files), name))])  # fmt: skip
        rows.append([name, *(f"{value:.1e}" for value in (np.median(differences), differences.max()))])
    title = f"{len(files)} real photographs, from the file to the probability of {run.config.model.backbone}"
    console.table(title, ("pixels", "median of the largest differences", "largest difference"), rows)


def prepared(path: Path, size: int) -> Pixels:
    _, jpeg = prepare_bytes(path.read_bytes(), size)
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image)


def original(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def photographs(count: int) -> Iterator[Path]:
    """Native photographs first, then those of 2017."""
    place = real_images()
    files = [*sorted((place / "native").glob("*.jpg")), *sorted((place / "2017/ISIC-2017_Training_Data").glob("*.jpg"))]
    yield from files[:count]


if __name__ == "__main__":
    run_benchmark(main)
