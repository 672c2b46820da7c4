"""`evaluate` of a segmentation run: the mean of its models segments unseen images, which are scored with true masks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.evaluation import EVALUATION, EvaluationRecord, MaskResults
from melanoma_dist.artifacts.integrity import hashes_of
from melanoma_dist.artifacts.predictions import write_predictions
from melanoma_dist.artifacts.run_record import current_environment, now
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.data.masks import decode_mask
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.evaluate.holdout.contamination import exclude_related, training_images
from melanoma_dist.evaluate.holdout.metrics import ENSEMBLE
from melanoma_dist.evaluate.holdout.start import started
from melanoma_dist.evaluate.masks.report import write_mask_report
from melanoma_dist.evaluate.masks.scores import SHOWN, in_words
from melanoma_dist.inference.ensemble import one_process
from melanoma_dist.inference.images import Images, Selection, select_all, select_holdout
from melanoma_dist.inference.segmenter import TrainedSegmenter, open_segmenter
from melanoma_dist.metrics.segmentation import METRICS, Mask, MaskScores, mean_scores
from melanoma_dist.train.mask_predict import score_masks


def evaluate_masks(settings: EvaluateConfig) -> None:
    """Evaluate a finished segmentation run on images with masks that none of its folds has seen.

    Everything is checked first. Every evaluation is logged before any image is scored.
    """
    if settings.prevalence is not None:
        rule = "is that of a label, and a segmenter has none"
        raise ConfigError.of("prevalence", settings.prevalence, rule, "Leave it out.")
    run = open_segmenter(settings.run, one_process(settings.gpus, settings.decode_threads))
    selection = _select(settings, run)
    selection.images.check_bytes()
    _ = run.models
    tta = settings.tta or run.config.input.tta
    with started(run, selection, tta, run.weights_sha256, "they have no lesion mask") as evaluation:
        table = score_images(run, selection.images, tta, settings.batch_size)
        write_predictions(table, evaluation.predictions)
        record = evaluation.finish(_results(table, hashes_of(evaluation.predictions)))
    _show(record)
    write_mask_report(run.folder.path)
    record_file = evaluation.path / EVALUATION
    console.places({"report": run.folder.report, "scores": evaluation.predictions, "metrics": record_file})


def score_images(run: TrainedSegmenter, images: Images, tta: int, batch_size: int | None = None) -> pd.DataFrame:
    """Score the mean of the models on images with masks: a row per image with its id, group, fold (-1) and METRICS."""
    store = ShardReader(images.dataset)
    scores = np.zeros((len(images.rows), len(METRICS)))
    loader = run.loader(images, batch_size)
    for pixels, batch in console.progress(loader, len(loader), "segmenting"):
        samples = batch.samples[: batch.count]
        truths = [_truth(store, int(images.rows[sample])) for sample in samples]
        scores[samples] = score_masks(run.probabilities(pixels, None, tta), truths, run.threshold)
    table = images.table[["image_id", "group"]].assign(fold=np.full(len(scores), ENSEMBLE, dtype=np.int32))
    return table.assign(**dict(zip(METRICS, scores.T, strict=True)))


def _truth(store: ShardReader, row: int) -> Mask:
    mask = store.mask(row)
    if mask is None:
        raise DataError(f"{store.image_id(row)}: has no mask. This is a bug.")
    return decode_mask(mask)


def _select(settings: EvaluateConfig, run: TrainedSegmenter) -> Selection:
    own = run.dataset(settings.dataset)
    if settings.data is not None:
        selection = select_all(open_dataset(settings.data), settings.data, ())
    else:
        selection = select_holdout(own, settings.holdout or "", ())
    return exclude_related(selection, training_images(run, own), settings.exclude_seen)


def _results(table: pd.DataFrame, files: dict[str, str]) -> MaskResults:
    scores = [MaskScores(*row) for row in table[list(METRICS)].itertuples(index=False)]
    means = mean_scores(scores, table["group"].to_numpy())
    return MaskResults(scores=means, files=files, finished=now(), environment=current_environment())


def _show(record: EvaluationRecord) -> None:
    mark = f" — {SYNTHETIC}" if record.synthetic else ""
    scores = record.masks.scores if record.masks else {}
    rows = [[title, in_words(scores[name])] for name, title in SHOWN.items()]
    console.table(f"{record.name}: mean of the folds' models{mark}", ["", "mean (95 % interval)"], rows)
