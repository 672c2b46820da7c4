"""The `predict` command: collect images, score them chunk by chunk, mark what is doubtful, give the answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from melanoma_dist import console
from melanoma_dist.app.answers import answers_table, with_inputs, write_answers
from melanoma_dist.app.decoders import Decoders, preload_decoders
from melanoma_dist.app.display import show_answers, show_counts
from melanoma_dist.app.explanations import write_explanations
from melanoma_dist.app.inputs import InputImage, collect_images
from melanoma_dist.app.inspection import InspectedPhoto
from melanoma_dist.app.part_file import Conditions, PartFile, open_part
from melanoma_dist.app.patients import About, read_patients
from melanoma_dist.app.predictor import Predictor, open_known_images
from melanoma_dist.app.scoring import ScoredImage, chunk_size, chunks
from melanoma_dist.app.truth import Truth, read_truth, show_metrics
from melanoma_dist.artifacts.run_record import current_environment
from melanoma_dist.config.metadata import field_names
from melanoma_dist.config.predict import PredictConfig
from melanoma_dist.data.photo import PIXELS
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run, other_orientations
from melanoma_dist.train.device import arithmetic
from melanoma_dist.train.fold_data import evaluation_batch

_DECODING_S = 300.0  # the most for one image: the largest take some seconds


def predict(settings: PredictConfig) -> None:
    """Predict images with the ensemble of a run's folds.

    Reports mistakes before any image is read. An image that cannot be read is a row with its reason; after the last
    row it ends the command with exit code 1. With ``out``, an interrupted command resumes.
    """
    run = open_trained_run(settings.run)
    run.require_sight()
    images = collect_images(settings.inputs)
    truth = read_truth(images, run.labels)
    patients = read_patients(images, field_names(run.config.model.metadata))
    preload_decoders()
    known = open_known_images(run, settings.dataset)
    predictor = Predictor.load(run, known, settings.gpus, settings.decode_threads, settings.tta)
    _introduce(run, images, predictor.tta)
    if predictor.ensemble.run_features is None:
        console.info("not checked: which of these images are unlike the training images. The run has no features.")
    if settings.out is None:
        scored = _score(predictor, images, patients, settings, None)
        _answer(predictor, images, scored, truth, settings)
    else:
        with open_part(settings.out) as part:
            scored = _score(predictor, images, patients, settings, part)
            _answer(predictor, images, scored, truth, settings)
    _report_failures(scored)


def _answer(
    predictor: Predictor,
    images: Sequence[InputImage],
    scored: Sequence[ScoredImage],
    truth: Truth,
    settings: PredictConfig,
) -> None:
    """Write or show the answers, their counts and metrics, and explanations."""
    limits = predictor.limits
    answers = answers_table(scored, limits, checked=predictor.checked)
    if settings.out is None:
        show_answers(answers, limits.labels, predictor.run.synthetic)
    else:
        write_answers(with_inputs(answers, images, truth), settings.out)
    show_counts(answers, limits)
    if truth.columns:
        show_metrics(images, scored, truth, limits, checked=predictor.checked)
    if settings.explain is not None:
        write_explanations(predictor, scored, settings.explain)
    console.places(
        {name: path for name, path in {"predictions": settings.out, "pictures": settings.explain}.items() if path}
    )


def _introduce(run: TrainedRun, images: Sequence[InputImage], tta: int) -> None:
    config = run.config
    orientations = f", {tta} orientations of each" if tta > 1 else ""
    console.info(
        f"{run.folder.path}: {config.data.folds} folds of {config.model.backbone} on {len(images)} images{orientations}"
    )
    if tta != config.input.tta:
        console.info(other_orientations(config.input.tta))


def _score(
    predictor: Predictor,
    images: Sequence[InputImage],
    patients: Sequence[About],
    settings: PredictConfig,
    part: PartFile | None,
) -> list[ScoredImage]:
    """Score the images that ``part`` does not hold, and keep them in it."""
    # No larger than the number of images: a batch is always full, and a single image must not cost 64.
    batch_size = settings.batch_size or min(evaluation_batch(predictor.run.config), len(images))
    size = chunk_size(predictor.ensemble, batch_size)
    files = [image.path for image in images]
    scored = [] if part is None else part.restore(_conditions(predictor, batch_size, patients), files, size)
    scored = [replace(image, about=about) for image, about in zip(scored, patients, strict=False)]
    rest = files[len(scored) :]
    threads = settings.decode_threads or len(os.sched_getaffinity(0))
    with Decoders(min(threads, len(files)), predictor.run.image_size, _DECODING_S) as decoders:
        pairs = zip(decoders.inspect_files(rest), patients[len(scored) :], strict=True)
        photos = (replace(photo, about=about) for photo, about in pairs)
        stream = _score_chunks(predictor, chunks(photos, size), batch_size, part)
        return scored + list(console.progress(stream, len(rest), "predicting"))


def _score_chunks(
    predictor: Predictor, photos: Iterable[Sequence[InspectedPhoto]], batch_size: int, part: PartFile | None
) -> Iterator[ScoredImage]:
    for chunk in photos:
        scored = predictor.predict(chunk, batch_size)
        if part is not None:
            part.add(scored)
        yield from scored


def _conditions(predictor: Predictor, batch_size: int, patients: Sequence[About]) -> Conditions:
    """What an answer depends on besides its image."""
    informed = {"metadata": hashlib.sha256(repr(patients).encode()).hexdigest()} if predictor.limits.metadata else {}
    return {
        **informed,
        "run": predictor.fingerprint,
        "pixels": PIXELS,
        "tta": predictor.tta,
        "batch_size": batch_size,
        "dataset": predictor.checked,
        "features": predictor.ensemble.run_features is not None,
        **arithmetic(predictor.run.config.hardware, predictor.ensemble.world),
        **current_environment().versions(),
    }


def _report_failures(scored: Sequence[ScoredImage]) -> None:
    failed = [image for image in scored if image.error]
    if failed:
        first = f"{failed[0].photo.image_id}: {failed[0].error}"
        raise MelanomaDistError(f"{len(failed)} of {len(scored)} images cannot be predicted ({first}).")
