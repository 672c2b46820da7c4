"""Write ``report.html`` of a segmentation run: one self-contained file, from the records and tables of its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.evaluation import EVALUATION, EvaluationRecord, read_evaluation
from melanoma_dist.artifacts.gallery import GALLERY
from melanoma_dist.artifacts.integrity import check_untouched
from melanoma_dist.artifacts.mask_gallery import MaskGallery, read_mask_pictures
from melanoma_dist.artifacts.mask_summary import MaskSummary, read_mask_summary
from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.summary import REFINALIZE
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.masks.scores import SHOWN, in_words, score_cell
from melanoma_dist.evaluate.report.page import data_uri
from melanoma_dist.evaluate.report.tables import device_hours, devices, training_table, variance_table
from melanoma_dist.metrics.bootstrap import RESAMPLES
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.segmentation import FAILURE
from melanoma_dist.pages.environment import render
from melanoma_dist.pages.numbers import number
from melanoma_dist.pages.svg import BLUE, RED, WIDTH, PageFigure, plot
from melanoma_dist.pages.tables import Cell, Table, plain
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import read_text

_LISTED = 50  # failures; predictions.csv has all
_BINS = np.linspace(0, 1, 21)
_NO_INCIDENTS = "No fold skipped a step, halved its micro-batch or excluded an image."
_INTERVALS = f"Intervals of 95 % by {RESAMPLES:,} resamples of lesions."


def write_mask_report(run: Path, summary: MaskSummary | None = None) -> None:
    """Write RUN/report.html, whole or not at all. The same files give the same bytes.

    ``summary``: that of the run; read from its folder if None. Raises DataError for a file of the run that is missing,
    corrupt or changed.
    """
    folder, summary = RunFolder(run, {}), summary or read_mask_summary(run)
    check_untouched(folder.summary, summary.files, [folder.predictions], REFINALIZE)
    scores = read_predictions(folder.predictions)
    evaluations = [read_evaluation(path.parent) for path in sorted(run.glob(f"evaluations/*/{EVALUATION}"))]
    text = render(
        "evaluate/masks/page.html.j2",
        s=summary,
        name=run.resolve().name,
        jaccard=in_words(summary.out_of_fold["jaccard"]),
        synthetic=SYNTHETIC if summary.synthetic else "",
        takeaways=_takeaways(summary, scores),
        facts=_facts(summary),
        out_of_fold=_scores_table("Out of fold: each image by the model that did not train on it", summary.out_of_fold),
        intervals=_INTERVALS,
        evaluations=[_evaluation(record) for record in evaluations if record.masks],
        histogram=_histogram(scores),
        folds=_folds_table(summary),
        repeats=summary.seed_repeats,
        variance=_variance(summary),
        failures=_failures_table(scores),
        unlisted=max(0, int(_failed(scores).sum()) - _LISTED),
        gallery=_gallery(run),
        training=training_table(summary.training),
        cost=f"{device_hours(summary.training):.3f} {devices(summary.training)}-hours of training.",
        incidents=" ".join(summary.incidents) or _NO_INCIDENTS,
        command=f"python launch.py segment --config runs/{run.resolve().name}/config.yaml",
        config=read_text(run / "config.yaml"),
        record=json.dumps({"identity": summary.identity, "environment": asdict(summary.environment)}, indent=1),
    )
    atomic.write_text(folder.report, text)


def _failed(scores: pd.DataFrame) -> pd.Series[bool]:
    return scores["jaccard"] < FAILURE


def _takeaways(summary: MaskSummary, scores: pd.DataFrame) -> list[str]:
    failed = int(_failed(scores).sum())
    return [
        f"The predicted mask of an image overlaps the true one with a Jaccard index of "
        f"{in_words(summary.out_of_fold['jaccard'])}, the mean over {len(scores):,} images.",
        f"{failed:,} of {len(scores):,} masks have a Jaccard index below {FAILURE}: the challenge of 2018 counts them "
        f"as failed, and its score is {in_words(summary.out_of_fold['thresholded_jaccard'])}.",
    ]


def _facts(summary: MaskSummary) -> list[tuple[str, str]]:
    data = summary.data
    return [
        (
            "data",
            f"{data.folder}: {data.images:,} images of {data.lesions:,} lesions with masks, {', '.join(data.years)}",
        ),
        ("kept out", f"{data.kept_out:,} images: holdouts, and images without a mask"),
        ("encoder", f"{summary.encoder}, decoder of a U-Net, {summary.image_size} pixels a side, seed {summary.seed}"),
        ("threshold", f"a pixel is lesion from probability {summary.threshold:g} on"),
        ("size", "probabilities are resized to the size of the stored image before the threshold"),
        ("finished", summary.finished),
    ]


def _scores_table(caption: str, scores: Mapping[str, Interval | Undefined]) -> Table:
    return Table(
        caption, ("score", "mean (95 % interval)"), [[plain(SHOWN[name]), score_cell(scores[name])] for name in SHOWN]
    )


def _evaluation(record: EvaluationRecord) -> tuple[str, str, str, Table]:
    """Title, what the images are, a warning where they were evaluated before, and the scores."""
    scores = record.masks.scores if record.masks else {}
    about = (
        f"{record.data.images:,} images of {record.data.lesions:,} lesions that no fold was trained on, by the mean "
        f"of the folds' models, {record.tta} orientations of each. {record.exclusion}"
    ).rstrip()
    warning = (
        f"Evaluation {record.ordinal} on these images: what was changed after an earlier one makes these scores "
        "optimistic."
        if record.ordinal > 1
        else ""
    )
    title = f"{record.name} (evaluation {record.number} of {record.started[:10]})"
    return title, about, warning, _scores_table(f"{record.name}, unseen images", scores)


def _histogram(scores: pd.DataFrame) -> PageFigure:
    values = scores["jaccard"].to_numpy()
    counts, _ = np.histogram(values, _BINS)
    figure, axes = plot(2 * WIDTH, 2.6)
    colours = [RED if end <= FAILURE + 1e-9 else BLUE for end in _BINS[1:]]
    axes.bar(_BINS[:-1], counts, width=np.diff(_BINS), align="edge", color=colours, edgecolor="white")
    axes.axvline(FAILURE, color=RED, linestyle=":")
    axes.set_xlabel("Jaccard index of an image")
    axes.set_ylabel("images")
    axes.set_xlim(0, 1)
    quartiles = ", ".join(number(each) for each in np.quantile(values, [0.25, 0.5, 0.75]))
    rows = [
        [plain(f"{low:.2f} to {high:.2f}"), plain(int(count))]
        for low, high, count in zip(_BINS[:-1], _BINS[1:], counts, strict=True)
    ]
    return PageFigure(
        "jaccard", "Jaccard indices", figure,
        f"Histogram of the Jaccard index of {len(values)} images; quartiles {quartiles}.",
        f"Out of fold. Quartiles {quartiles}. Red: below {FAILURE}.",
        Table("Images by Jaccard index", ("Jaccard index", "images"), rows),
    )  # fmt: skip


def _folds_table(summary: MaskSummary) -> Table:
    rows = [
        [plain(f"fold {fold}"), *(Cell(number(scores[name])) for name in SHOWN)]
        for fold, scores in summary.folds.items()
    ]
    return Table("Means of each fold", ("", *SHOWN.values()), rows)


def _variance(summary: MaskSummary) -> Table | None:
    repeats = summary.seed_repeats
    return None if repeats is None else variance_table({"all images": repeats.components}, "Jaccard index")


def _failures_table(scores: pd.DataFrame) -> Table:
    failed = scores[_failed(scores)].sort_values(["jaccard", "image_id"]).head(_LISTED)
    columns = ("jaccard", "dice", "sensitivity", "specificity", "boundary_distance")
    rows = [
        [plain(row["image_id"]), plain(int(row["fold"])), *(Cell(number(row[name])) for name in columns)]
        for row in failed.to_dict("records")
    ]
    header = ("image", "fold", *(SHOWN[name] for name in columns))
    return Table(f"Images with a Jaccard index below {FAILURE}, the lowest first", header, rows)


def _gallery(run: Path) -> MaskGallery | None:
    """The stored pictures as data URIs."""
    gallery = read_mask_pictures(run)
    if gallery is None:
        return None
    kinds = [
        replace(
            kind, pictures=tuple(replace(each, picture=data_uri(run / GALLERY, each.picture)) for each in kind.pictures)
        )
        for kind in gallery.kinds
    ]
    return replace(gallery, kinds=tuple(kinds))
