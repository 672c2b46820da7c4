"""The `predict` command: collect images, score them in a stream, mark what is doubtful, write or show the answers."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_dist import console
from melanoma_dist.app.answers import answers_table, with_inputs, write_answers
from melanoma_dist.app.display import show_answers, show_counts
from melanoma_dist.app.doubts import Limits
from melanoma_dist.app.inputs import InputImage, collect_images
from melanoma_dist.app.known_images import KnownImages
from melanoma_dist.app.scoring import ScoredImage, score_images
from melanoma_dist.app.truth import read_truth, show_metrics
from melanoma_dist.config.predict import PredictConfig
from melanoma_dist.errors import MelanomaDistError, UserError
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run
from melanoma_dist.train.fold_data import evaluation_batch, input_format_of


def predict(settings: PredictConfig) -> None:
    """Predict images with the ensemble of a run's folds.

    Reports mistakes before any image is read. An image that cannot be read is a row with its reason; after the last
    row it ends the command with exit code 1.
    """
    run = open_trained_run(settings.run)
    images = collect_images(settings.inputs)
    truth = read_truth(images, run.labels)
    known = _open_known_images(run, settings.dataset)
    ensemble = Ensemble.of(run, one_process(settings.gpus, settings.decode_threads))
    limits = _limits(run, ensemble)
    tta = settings.tta or run.config.input.tta
    _introduce(run, images, tta)
    scored = _score(settings, run, ensemble, images, known, tta)
    answers = answers_table(scored, limits, checked=known is not None)
    if settings.out is None:
        show_answers(answers, limits.labels, run.synthetic)
    else:
        write_answers(with_inputs(answers, images, truth), settings.out)
    show_counts(answers, limits)
    if truth.columns:
        show_metrics(images, scored, truth, limits, checked=known is not None)
    if settings.out is not None:
        console.places({"predictions": settings.out})
    _report_failures(scored)


def _open_known_images(run: TrainedRun, moved_to: str | None) -> KnownImages | None:
    """The images of the run's own data set; None, after a message, if it cannot be read and was not named."""
    try:
        return KnownImages(run, run.dataset(moved_to))
    except UserError as error:
        if moved_to is not None:
            raise
        console.info(f"not checked: which of these images the run was trained on. {error}")
        return None


def _limits(run: TrainedRun, ensemble: Ensemble) -> Limits:
    thresholds = run.decision_rules.thresholds(run.labels, run.config.threshold)
    return Limits(run.labels, thresholds, input_format_of(ensemble.units[0]).size)


def _introduce(run: TrainedRun, images: Sequence[InputImage], tta: int) -> None:
    config = run.config
    orientations = f", {tta} orientations of each" if tta > 1 else ""
    console.info(
        f"{run.folder.path}: {config.data.folds} folds of {config.model.backbone} on {len(images)} images{orientations}"
    )


def _score(
    settings: PredictConfig,
    run: TrainedRun,
    ensemble: Ensemble,
    images: Sequence[InputImage],
    known: KnownImages | None,
    tta: int,
) -> list[ScoredImage]:
    # No larger than the number of images: a batch is always full, and a single image must not cost 64.
    batch_size = settings.batch_size or min(evaluation_batch(run.config), len(images))
    files = [image.path for image in images]
    stream = score_images(ensemble, files, run.image_size, tta, batch_size)
    stream = console.progress(stream, len(images), "predicting")
    return list(stream if known is None else known.mark(stream))


def _report_failures(scored: Sequence[ScoredImage]) -> None:
    failed = [image for image in scored if image.error]
    if failed:
        first = f"{failed[0].photo.image_id}: {failed[0].error}"
        raise MelanomaDistError(f"{len(failed)} of {len(scored)} images cannot be predicted ({first}).")
