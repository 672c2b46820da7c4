"""Finalize a segmentation run: merge its folds' scores into one table, and write their means with intervals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from melanoma_dist.artifacts.epochs import read_epochs
from melanoma_dist.artifacts.integrity import hashes_of
from melanoma_dist.artifacts.mask_summary import JaccardRepeats, MaskSummary, write_mask_summary
from melanoma_dist.artifacts.predictions import read_predictions, write_csv, write_predictions
from melanoma_dist.artifacts.run_folder import RunFolder, trainings
from melanoma_dist.artifacts.run_record import current_environment, now
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.evaluate.finalize import fold_trainings, trained_data
from melanoma_dist.evaluate.incidents import incidents
from melanoma_dist.evaluate.masks.gallery import write_mask_gallery
from melanoma_dist.evaluate.masks.report import write_mask_report
from melanoma_dist.evaluate.masks.scores import SHOWN, in_words
from melanoma_dist.evaluate.summary import number, out_of_fold
from melanoma_dist.metrics.cross_validation import variance_components
from melanoma_dist.metrics.segmentation import FAILURES, METRICS, MaskScores, mean_scores


def finalize_masks(
    config: RunConfig, dataset: Dataset, folds: pd.DataFrame, folder: RunFolder, seconds: float
) -> MaskSummary:
    """Compute the scores of a run from those of its finished folds, and write them, the summary last.

    ``seconds`` is what the command took. Raises DataError unless each image was scored once, by the right fold.
    """
    tables = [_collect(place, config, folds) for _, place in trainings(config, folder)]
    table = tables[0]
    scores = [MaskScores(*row) for row in table[list(METRICS)].itertuples(index=False)]
    summary = MaskSummary(
        synthetic=dataset.synthetic,
        encoder=config.model.backbone,
        image_size=config.input.image_size or 0,
        seed=config.seed,
        threshold=config.threshold,
        data=trained_data(dataset, folds),
        out_of_fold=mean_scores(scores, table["group"].to_numpy()),
        folds=_by_fold(table),
        seed_repeats=_repeats(tables, config),
        training=fold_trainings([read_epochs(folder.path / f"fold-{fold}") for fold in range(config.data.folds)]),
        incidents=tuple(incidents(config, folder)),
        seconds_of_last_command=round(seconds, 1),
        identity=folder.identity,
        environment=current_environment(),
        finished=now(),
        files=hashes_of(folder.predictions),
    )
    write_mask_gallery(config, dataset, folder, table)
    write_mask_report(folder.path, summary)
    write_mask_summary(folder.path, summary)
    return summary


def _collect(place: Path, config: RunConfig, folds: pd.DataFrame) -> pd.DataFrame:
    """Merge and check the scores of one training's folds, and write them as one table."""
    parts = [read_predictions(place / f"fold-{fold}" / "predictions.parquet") for fold in range(config.data.folds)]
    table = out_of_fold(parts, folds)
    write_predictions(table, place / "predictions.parquet")
    write_csv(table, place / "predictions.csv")
    return table


def _repeats(tables: list[pd.DataFrame], config: RunConfig) -> JaccardRepeats | None:
    if len(tables) < 2:
        return None
    by_seed = [table.groupby("fold")["jaccard"].mean().tolist() for table in tables]
    jaccard = tuple(zip(*by_seed, strict=True))
    seeds = tuple(config.seed + repeat for repeat in range(config.repeats))
    return JaccardRepeats(seeds, jaccard, variance_components(jaccard))


def _by_fold(table: pd.DataFrame) -> dict[int, dict[str, float]]:
    means = table.assign(**{FAILURES: table["jaccard"].gt(table["thresholded_jaccard"]).astype(float)})
    means = means.groupby("fold")[[*METRICS, FAILURES]].mean()
    return {int(str(fold)): {str(name): float(value) for name, value in row.items()} for fold, row in means.iterrows()}


def score_rows(summary: MaskSummary) -> list[list[str]]:
    """The table of the terminal: a row per score, with its interval and its range over the folds."""
    rows = []
    for name, title in SHOWN.items():
        folds = [each[name] for each in summary.folds.values()]
        rows.append([title, in_words(summary.out_of_fold[name]), f"{number(min(folds), 3)} to {number(max(folds), 3)}"])
    return rows


def conclusion(summary: MaskSummary) -> str:
    """What the run found, in one sentence."""
    on = " synthetic" if summary.synthetic else ""
    return (
        f"Mean Jaccard {in_words(summary.out_of_fold['jaccard'])} over {summary.data.images}{on} images in "
        f"{len(summary.folds)} folds, each segmented by the model that did not train on it."
    )
