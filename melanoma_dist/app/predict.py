"""The `predict` command: collect images, score them in a stream, mark what is doubtful, write or show the answers."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_dist import console
from melanoma_dist.app.answers import answers_table, with_inputs, write_answers
from melanoma_dist.app.display import show_answers, show_counts
from melanoma_dist.app.explanations import write_explanations
from melanoma_dist.app.inputs import InputImage, collect_images
from melanoma_dist.app.predictor import Predictor, open_known_images
from melanoma_dist.app.scoring import ScoredImage, score_images
from melanoma_dist.app.truth import read_truth, show_metrics
from melanoma_dist.config.predict import PredictConfig
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run
from melanoma_dist.train.fold_data import evaluation_batch


def predict(settings: PredictConfig) -> None:
    """Predict images with the ensemble of a run's folds.

    Reports mistakes before any image is read. An image that cannot be read is a row with its reason; after the last
    row it ends the command with exit code 1.
    """
    run = open_trained_run(settings.run)
    images = collect_images(settings.inputs)
    truth = read_truth(images, run.labels)
    known = open_known_images(run, settings.dataset)
    predictor = Predictor.load(run, known, settings.gpus, settings.decode_threads, settings.tta)
    limits = predictor.limits
    _introduce(run, images, predictor.tta)
    if predictor.ensemble.run_features is None:
        console.info("not checked: which of these images are unlike the training images. The run has no features.")
    scored = _score(predictor, images, settings.batch_size)
    answers = answers_table(scored, limits, checked=predictor.checked)
    if settings.out is None:
        show_answers(answers, limits.labels, run.synthetic)
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
    _report_failures(scored)


def _introduce(run: TrainedRun, images: Sequence[InputImage], tta: int) -> None:
    config = run.config
    orientations = f", {tta} orientations of each" if tta > 1 else ""
    console.info(
        f"{run.folder.path}: {config.data.folds} folds of {config.model.backbone} on {len(images)} images{orientations}"
    )


def _score(predictor: Predictor, images: Sequence[InputImage], batch_size: int | None) -> list[ScoredImage]:
    # No larger than the number of images: a batch is always full, and a single image must not cost 64.
    batch_size = batch_size or min(evaluation_batch(predictor.run.config), len(images))
    files = [image.path for image in images]
    stream = score_images(predictor.ensemble, files, predictor.run.image_size, predictor.tta, batch_size)
    stream = console.progress(stream, len(images), "predicting")
    return list(stream if predictor.known is None else predictor.known.mark(stream))


def _report_failures(scored: Sequence[ScoredImage]) -> None:
    failed = [image for image in scored if image.error]
    if failed:
        first = f"{failed[0].photo.image_id}: {failed[0].error}"
        raise MelanomaDistError(f"{len(failed)} of {len(scored)} images cannot be predicted ({first}).")
