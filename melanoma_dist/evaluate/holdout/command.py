"""The `evaluate` command: open the run, select images, prove them unseen, log the evaluation, score, report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.evaluation import EVALUATION, EvaluationRecord
from melanoma_dist.artifacts.integrity import hashes_of
from melanoma_dist.artifacts.predictions import write_predictions
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.saved import is_segmenter
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.groups import groups_in_words
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.holdout.access_history import EVALUATIONS
from melanoma_dist.evaluate.holdout.access_log import Evaluation, log_evaluation
from melanoma_dist.evaluate.holdout.contamination import exclude_related, training_images
from melanoma_dist.evaluate.holdout.display import show
from melanoma_dist.evaluate.holdout.metrics import compute_results, prediction_tables
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.run_results import with_files
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.images import Selection, select_all, select_holdout
from melanoma_dist.inference.segmenter import TrainedSegmenter
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run, other_orientations
from melanoma_dist.storage.locks import LOCK, lock_file


def evaluate(settings: EvaluateConfig) -> None:
    """Evaluate a finished run on images that none of its folds has seen.

    Everything is checked first. Every evaluation is logged before any image is scored.
    """
    if is_segmenter(settings.run):
        from melanoma_dist.evaluate.masks.evaluate import evaluate_masks

        return evaluate_masks(settings)
    run = open_trained_run(settings.run)
    selection = _select(settings, run)
    selection.images.check_bytes()
    ensemble = Ensemble.of(run, one_process(settings.gpus, settings.decode_threads))
    tta = settings.tta or run.config.input.tta
    unlabelled = "none of the run's labels is known for them"
    with started(run, selection, tta, ensemble.weights_sha256, unlabelled) as evaluation:
        tables = prediction_tables(selection.images, ensemble.predict(selection.images, tta, settings.batch_size))
        write_predictions(tables.ensemble, evaluation.predictions)
        write_predictions(pd.concat(tables.raw, ignore_index=True), evaluation.folds)
        files = hashes_of(evaluation.predictions, evaluation.folds)
        results = compute_results(run, selection.images, tables, settings.prevalence, files)
        record = evaluation.finish(results)
    show(record, results, run.labels.headline)
    report = with_files(run.folder.path, run.summary, run.predictions())
    write_report(report)
    write_card(report)
    record_file = evaluation.path / EVALUATION
    console.places({"report": run.folder.report, "predictions": evaluation.predictions, "metrics": record_file})


def _select(settings: EvaluateConfig, run: TrainedRun) -> Selection:
    """Select the images of --holdout or --data, and prove them unseen or leave the others out."""
    own = run.dataset(settings.dataset)
    if settings.data is not None:
        run.require_sight()  # a table of lesions is about its own data set alone
        selection = select_all(open_dataset(settings.data), settings.data, run.labels)
    else:
        selection = select_holdout(own, settings.holdout or "", run.labels)
    return exclude_related(selection, training_images(run, own), settings.exclude_seen)


@contextmanager
def started(
    run: TrainedRun | TrainedSegmenter, selection: Selection, tta: int, models: dict[int, str], unlabelled: str
) -> Iterator[Evaluation]:
    """Say what is evaluated and log it; no other command evaluates the run meanwhile.

    ``models``: hash of each fold's weights. ``unlabelled``: why some images are left out, in words.
    """
    _introduce(run.folder, run.config, selection, tta, unlabelled)
    with _exclusive(run.folder):
        evaluation = log_evaluation(run, selection, tta, models)
        if exclusion := evaluation.record.exclusion:
            console.info(exclusion)
        _say_earlier(evaluation.record)
        yield evaluation


def _introduce(folder: RunFolder, config: RunConfig, selection: Selection, tta: int, unlabelled: str) -> None:
    """Print which models are evaluated on which images, and what was checked."""
    table = selection.images.table
    console.info(
        f"{folder.path}: {config.data.folds} folds of {config.model.backbone} on {selection.name}: {len(table)} "
        f"images of {table['group'].nunique()} {groups_in_words(table)}"
        + (f", {tta} orientations of each" if tta > 1 else "")
    )
    if tta != config.input.tta and config.task == "classification":
        console.info(other_orientations(config.input.tta))
    if selection.unlabelled:
        console.info(f"{selection.unlabelled} images are left out: {unlabelled}.")
    weights = config.model.weights
    if weights not in ("imagenet", "none") and not Path(weights).exists():
        console.info(f"not checked: what the run's start weights were trained on, for {weights} is gone.")
    console.info("checked: none of these images, of their lesions, patients or known copies was trained on")


def _exclusive(folder: RunFolder) -> AbstractContextManager[None]:
    """Lock the evaluations of a run."""
    place = folder.path / EVALUATIONS
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        why = f"the evaluation cannot be logged there ({error.strerror or error})"
        raise ConfigError(f"evaluate {folder.path}: {why}. No image was scored.") from error
    return lock_file(
        place / LOCK, ConfigError(f"evaluate {folder.path}: another command is evaluating it. Wait for it.")
    )


def _say_earlier(record: EvaluationRecord) -> None:
    """Print which evaluation on these images it is."""
    if not record.earlier:
        console.info(
            "No record in this folder of runs has an earlier evaluation on any of these images; evaluations elsewhere "
            "cannot be known."
        )
        return
    console.info(
        f"This is evaluation {record.ordinal} on these images: {_seen_before(record)}.{_deleted(record)} Whatever was "
        "changed or chosen after an earlier evaluation makes these metrics optimistic; the report says so."
    )


def _seen_before(record: EvaluationRecord) -> str:
    """How many of the images were evaluated before, and when first."""
    first, images = record.earlier[0], record.data.images
    if first.started is None:
        return f"no existing record has any of the {images}, but one is missing"
    when = f"the first was on {first.started[:10]} (evaluation {first.number} of {first.run})"
    return f"{record.seen_before} of {images} were evaluated before; {when}"


def _deleted(record: EvaluationRecord) -> str:
    """The evaluations whose records are gone; empty where none is."""
    names = [f"evaluation {each.number} of {each.run}" for each in record.earlier if each.deleted]
    if not names:
        return ""
    return f" Records deleted or moved away: {', '.join(names)}. Their images are not known, so they count."
