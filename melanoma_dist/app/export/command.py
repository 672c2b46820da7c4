"""The `export` command: write the files of a run aside, compare them with `predict`, and keep them if they agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from melanoma_dist import console
from melanoma_dist.app.export.description import Description, describe
from melanoma_dist.app.export.documents import card_of, copy_scripts, tta_note, write_examples, write_readme
from melanoma_dist.app.export.first_stage import SEGMENTER, compare_lesions, lesion_rule, segmenter_graph
from melanoma_dist.app.export.folder import publish
from melanoma_dist.app.export.graph import Calibration, ExportedGraph, Graph
from melanoma_dist.app.export.hub import load_hub, write_hub
from melanoma_dist.app.export.licence import ModelLicence, model_licence
from melanoma_dist.app.export.onnx_file import open_onnx, write_onnx
from melanoma_dist.app.export.parity import (
    LARGEST_DIFFERENCE,
    LARGEST_OF_PIXELS,
    Answer,
    Parity,
    ParityImage,
    Reference,
    compare,
    compare_predictions,
    parity_images,
    require_parity,
    rounding_of,
)
from melanoma_dist.app.export.torch_file import DESCRIPTION, open_torch, write_torch
from melanoma_dist.config.export import ExportConfig
from melanoma_dist.config.weights import is_keras
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.distributed.preflight import ModelSize
from melanoma_dist.errors import ConfigError, MelanomaDistError
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.ensemble_predictions import EnsemblePredictions
from melanoma_dist.inference.segmenter import TrainedSegmenter
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run
from melanoma_dist.train.fold_data import input_format_of

Write = Callable[[Graph, Path, Description], None]
_GRAPHS: dict[str, tuple[str, Write, Callable[[Path, int], Answer]]] = {
    "onnx": (".onnx", write_onnx, open_onnx),
    "torch": (".pt2", write_torch, open_torch),
}


@dataclass(frozen=True)
class _Export:
    """A run to export, and what `predict` answers for the images that compare."""

    settings: ExportConfig
    run: TrainedRun
    ensemble: Ensemble
    tta: int
    licence: ModelLicence
    about: Description
    card: str
    reference: Reference


def export(settings: ExportConfig) -> None:
    """Export a run. Raises MelanomaDistError, and leaves nothing, if a file answers otherwise than `predict`."""
    job = _prepare(settings)
    _introduce(job)
    parities: list[Parity] = []
    publish(settings.folder, _least_bytes(job), lambda folder: parities.extend(_write(job, folder)))
    _show(parities, settings.folder)


def _prepare(settings: ExportConfig) -> _Export:
    run = open_trained_run(settings.run)
    run.require_sight()
    if settings.format == "hub" and run.lesions is not None:
        rule = f"has no place for the segmenter of a run that sees lesions ({run.config.region.flags})"
        raise ConfigError.of("format", "hub", rule, "Type --format onnx or --format torch.")
    if settings.format == "hub" and is_keras(run.config.model.backbone):
        rule = f"is for timm, which cannot build {run.config.model.backbone}: the architecture is Keras's"
        raise ConfigError.of("format", "hub", rule, "Type --format onnx or --format torch.")
    card = card_of(run)
    ensemble = Ensemble.of(run, one_process(0, settings.decode_threads))
    tta = settings.tta or run.config.input.tta
    licence = model_licence(run)
    images = parity_images(run)
    with console.phase(f"predicting {len(images)} images"):
        expected = _predict(ensemble, images, tta)
    reference = Reference(images, expected, run.image_size, ensemble.metadata_fields)
    segmenter = ensemble.segmenter
    lesion = None if segmenter is None else lesion_rule(run.config.region, segmenter)
    about = describe(run, ensemble, tta, licence.short, lesion)
    return _Export(settings, run, ensemble, tta, licence, about, card, reference)


def _predict(ensemble: Ensemble, images: Sequence[ParityImage], tta: int) -> EnsemblePredictions:
    return ensemble.predict([image.data for image in images], tta, about=[image.about for image in images])


def _introduce(job: _Export) -> None:
    config = job.run.config
    console.info(f"{job.run.folder.path}: {config.data.folds} folds of {config.model.backbone}. {tta_note(job.about)}")
    if job.run.synthetic:
        console.info(SYNTHETIC)


def _least_bytes(job: _Export) -> int:
    """The bytes of the weights in the files: each fold's own one, and but for the hub all of them in one more."""
    copies = 1 if job.settings.format == "hub" else 2
    return copies * sum(ModelSize.of(model).state for model in job.ensemble.folds)


def _write(job: _Export, folder: Path) -> list[Parity]:
    chosen = job.settings.format
    parities = list(_hub(job, folder) if chosen == "hub" else _graphs(job, folder))
    about = {**job.about, "parity": {"limit": LARGEST_DIFFERENCE, "files": [asdict(parity) for parity in parities]}}
    (folder / DESCRIPTION).write_text(json.dumps(about, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_readme(folder, job.card, chosen, job.about, job.licence)
    (folder / "LICENSE.txt").write_text(job.licence.text, encoding="utf-8")
    write_examples(folder, job.reference, job.run.synthetic)
    copy_scripts(folder, chosen, job.about)
    return parities


def _graphs(job: _Export, folder: Path) -> Iterator[Parity]:
    """Write a file for each fold, then one of the ensemble. Stops at the first that differs."""
    suffix, write, load = _GRAPHS[job.settings.format]
    if job.ensemble.segmenter is not None:
        parity, images = _first_stage(job, folder, job.ensemble.segmenter)
        yield parity
        job = replace(job, reference=replace(job.reference, images=images))
    models = [job.ensemble.fold_model(unit.fold) for unit in job.ensemble.units]
    parts = [(f"fold-{fold}", [model], fold) for fold, model in enumerate(models)]
    for name, members, fold in [*parts, ("ensemble", models, None)]:
        path = folder / f"{name}{suffix}"
        with console.phase(f"exporting {path.name}"):
            graph = _graph(job, members)
            _try(write, job, graph, path, {**job.about, "folds": len(members), "file": name})
            answer = load(path, job.ensemble.world.threads)
            parity = compare(path.name, answer, job.reference, fold)
        require_parity(parity, partial(rounding_of, graph, answer, parity, job.reference, fold))
        yield parity


def _first_stage(job: _Export, folder: Path, segmenter: TrainedSegmenter) -> tuple[Parity, list[ParityImage]]:
    """Write the file of the segmenter. Returns its parity, and what the models see of the images by it."""
    suffix, write, load = _GRAPHS[job.settings.format]
    path, rule = folder / f"{SEGMENTER}{suffix}", job.about["lesion"]
    about = {name: job.about[name] for name in ("schema", "use", "data", "licence", "run", "input", "shorter_side")}
    with console.phase(f"exporting {path.name}"):
        _try(write, job, segmenter_graph(segmenter), path, {**about, **rule, "backbone": rule["encoder"]})
        answer = load(path, job.ensemble.world.threads)
        parity, images = compare_lesions(path.name, answer, job.reference, rule, segmenter)
    require_parity(parity, limit=LARGEST_OF_PIXELS)
    return parity, images


def _try(write: Write, job: _Export, graph: Graph, path: Path, about: Description) -> None:
    """Write a file. Raises MelanomaDistError for a backbone that PyTorch's exporters cannot write."""
    try:
        write(graph, path, about)
    except OSError:
        raise
    except Exception as error:  # exporters fail in a dozen ways on a backbone that they do not know
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise MelanomaDistError(
            f"{path.name}: the exporter cannot write {about['backbone']} ({reason}). No file was kept. "
            f"Try another format than --format {job.settings.format}."
        ) from error


def _graph(job: _Export, models: Sequence[nn.Module]) -> ExportedGraph:
    calibration = Calibration(job.run.decision_rules, job.run.labels)
    image_format = input_format_of(job.ensemble.units[0])
    thresholds, fields = job.reference.expected.thresholds, job.reference.fields
    channels = job.run.config.region.channels
    return ExportedGraph(models, image_format, job.tta, calibration, thresholds, fields, channels)


def _hub(job: _Export, folder: Path) -> Iterator[Parity]:
    with console.phase("exporting safetensors"):
        write_hub(job.run, job.ensemble, folder)
        loaded = load_hub(folder, threads=job.ensemble.world.threads)
        answers = _predict(loaded, job.reference.images, job.tta)
    parity = compare_predictions("all folds", answers, job.reference)
    require_parity(parity)
    yield parity


def _show(parities: Sequence[Parity], folder: Path) -> None:
    rows = [
        (each.name, _size(folder / each.name), each.images, f"{each.difference:.1e}", each.image, each.calls)
        for each in parities
    ]
    header = ("file", "size", "images", "largest difference", "of image", "calls that differ")
    console.table("Probabilities against those of `predict`", header, rows)
    console.places({"export": folder})


def _size(path: Path) -> str:
    """The size of a file and of the weights beside it; without such a file, of all weights below its folder."""
    files = [path, path.with_name(f"{path.name}.data")] if path.is_file() else path.parent.rglob("*.safetensors")
    return console.size(sum(file.stat().st_size for file in files if file.is_file()))
