"""The `evaluate` command: open the run, select images, prove them unseen, log the evaluation, score, report."""

from __future__ import annotations

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.evaluation import EVALUATION
from melanoma_dist.artifacts.integrity import hashes_of
from melanoma_dist.artifacts.predictions import write_predictions
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.config.saved import is_segmenter
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.evaluate.holdout.contamination import exclude_related, training_images
from melanoma_dist.evaluate.holdout.display import show
from melanoma_dist.evaluate.holdout.metrics import compute_results, prediction_tables
from melanoma_dist.evaluate.holdout.start import started
from melanoma_dist.evaluate.masks.evaluate import evaluate_masks
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.run_results import with_files
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.images import Selection, select_all, select_holdout
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run


def evaluate(settings: EvaluateConfig) -> None:
    """Evaluate a finished run on images that none of its folds has seen.

    Everything is checked first. Every evaluation is logged before any image is scored.
    """
    if is_segmenter(settings.run):
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
