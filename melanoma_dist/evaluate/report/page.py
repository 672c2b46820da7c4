"""Write ``report.html``: a finished run for clinicians and statisticians, one self-contained file that also prints."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from melanoma_dist.artifacts.assessment import Assessment
from melanoma_dist.artifacts.gallery import GALLERY, Gallery, GalleryImage
from melanoma_dist.artifacts.summary import RunSummary
from melanoma_dist.config.label_sets import label_name
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.report import statements, tables
from melanoma_dist.evaluate.report.cells import NAMES
from melanoma_dist.evaluate.report.facts import facts, glossary, headlines, takeaways
from melanoma_dist.evaluate.report.figures import Missing, headline_figures, subgroup_figure
from melanoma_dist.evaluate.report.metadata import metadata_part
from melanoma_dist.evaluate.report.run_results import OUT_OF_FOLD, Evaluation, RunResults, headline
from melanoma_dist.evaluate.report.training_figures import training_figures
from melanoma_dist.metrics.cross_validation import FEWEST_FOLDS
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import OperatingPoint
from melanoma_dist.pages.environment import render
from melanoma_dist.pages.numbers import number
from melanoma_dist.pages.svg import PageFigure
from melanoma_dist.pages.tables import Table
from melanoma_dist.storage import atomic
from melanoma_dist.storage.images import open_image
from melanoma_dist.storage.untrusted import read_bytes

_NO_INCIDENTS = "No fold skipped a step, halved its micro-batch or excluded an image."
_REWRITE = "Bring the file back, or delete summary.json and run the run's own training command again."
_LOGGED = ("number", "name", "kind", "started", "data", "tta", "images_sha256", "models", "earlier")
_PICTURE = re.compile(r"[\w-]+\.jpg", re.ASCII)


class Part(NamedTuple):
    """The metrics of one set of images."""

    title: str
    note: str
    warning: str
    tables: list[Table]
    thin: list[str]
    """Metrics with fewer resamples."""


def write_report(results: RunResults) -> None:
    """Write RUN/report.html, whole or not at all. The same results give the same bytes.

    Needs no images: ``write_error_gallery`` stored the pictures. Raises DataError for a corrupt one.
    """
    text = render("evaluate/report/page.html.j2", **_contents(results))
    atomic.write_text(results.folder / "report.html", text)


def _contents(results: RunResults) -> dict[str, Any]:
    summary = results.summary
    figures = headline_figures(results)
    return {
        "s": summary,
        "name": results.folder.resolve().name,
        "label": results.label,
        "label_name": label_name(results.label),
        "synthetic": SYNTHETIC if results.synthetic else "",
        "headlines": headlines(results),
        "takeaways": takeaways(results),
        "glossary": glossary(summary),
        "facts": facts(results),
        "statements": statements.leakage(results),
        "evaluations": [(each, statements.history(each)) for each in results.evaluations],
        "parts": [*(_unseen(each, results.label) for each in _in_order(results)), _out_of_fold(results)],
        "metadata": metadata_part(summary.metadata),
        "official": tables.isic_scores_table(_assessments(results)),
        "spread": [_folds(results), tables.over_folds_table(summary.over_folds)],
        "fewest_folds": FEWEST_FOLDS,
        "repeats": summary.seed_repeats,
        "variance": tables.variance_table(summary.seed_repeats.components) if summary.seed_repeats else None,
        "curves": [each for each in figures if isinstance(each, PageFigure)],
        "missing": [each for each in figures if isinstance(each, Missing)],
        "points": _points(results),
        "about_points": statements.POINTS,
        "trainings": training_figures(results),
        "subgroups": _subgroups(results),
        "gallery": _gallery(results),
        "training": tables.training_table(summary.training),
        "incidents": " ".join(summary.incidents) or _NO_INCIDENTS,
        "cost": _cost(summary),
        "command": f"python launch.py --config runs/{results.folder.resolve().name}/config.yaml",
        "config": results.config_text,
        "identity": _identity(results),
        "record": _record(results),
        "limits": statements.limits(results),
    }


def _in_order(results: RunResults) -> list[Evaluation]:
    lead = results.leading()
    return sorted(results.evaluations, key=lambda each: each is not lead)


def _assessments(results: RunResults) -> dict[str, Assessment]:
    unseen = {each.title: each.results.ensemble for each in _in_order(results)}
    return {**unseen, OUT_OF_FOLD: results.summary.out_of_fold}


def _unseen(evaluation: Evaluation, label: str) -> Part:
    record, evaluated, assessment = evaluation.record, evaluation.results, evaluation.results.ensemble
    parts = _tables(assessment, record.labels_absent, record.name)
    if evaluated.prevalence is not None:
        where = f"{record.name} at a prevalence of {evaluated.prevalence:g}"
        parts.append(tables.metrics_table(assessment, "image", ("ppv", "npv"), record.labels_absent, where))
    if evaluated.folds:
        caption = f"{record.name}, each fold alone"
        parts.append(
            tables.folds_table(evaluated.folds, label, "the run's operating points", caption, assessment.by_image)
        )
    note = (
        "Mean of the calibrated probabilities of all folds; calibration and thresholds come from the out-of-fold "
        f"predictions. {_bootstrap(assessment)} Threshold: {_thresholds(assessment)}. {record.exclusion}"
    ).rstrip()
    warning = statements.history(evaluation) if record.ordinal > 1 else ""
    return Part(f"Unseen images: {evaluation.title}", note, warning, parts, _thin(assessment))


def _out_of_fold(results: RunResults) -> Part:
    assessment = results.summary.out_of_fold
    note = (
        f"Raw probabilities of the fold that did not train on the lesion; {statements.OPTIMISTIC}. "
        f"{_bootstrap(assessment)} Threshold: {_thresholds(assessment)}."
    )
    parts = [_of_raw(table) for table in _tables(assessment, {}, OUT_OF_FOLD)]
    return Part("Out of fold", note, "", parts, _thin(assessment))


def _of_raw(table: Table) -> Table:
    """Name the scores of probabilities as those of raw ones: out of fold, nothing is calibrated."""
    names = {NAMES[name]: f"{NAMES[name]} of raw probabilities" for name in ("brier", "calibration_error")}
    return table._replace(header=[names.get(name, name) for name in table.header])


def _tables(assessment: Assessment, absent: Mapping[str, str], where: str) -> list[Table]:
    return [
        tables.metrics_table(assessment, unit, names, absent, where)
        for unit in tables.UNITS
        for names in (tables.MAIN, tables.MORE)
    ]


def _bootstrap(assessment: Assessment) -> str:
    settings = assessment.bootstrap
    text = (
        f"Intervals of {settings.level:.0%} by {settings.resamples:,} resamples of {assessment.resampled}; beside "
        "the AUC also by DeLong's variance for clustered images (Obuchowski 1997)."
    )
    count = assessment.contradictory
    return text + (f" {count} labels contradict each other within a lesion and count per image alone." if count else "")


def _thresholds(assessment: Assessment) -> str:
    thresholds = assessment.thresholds
    if len(set(thresholds.values())) == 1:
        return f"probability {next(iter(thresholds.values())):g}"
    return "probability " + ", ".join(f"{value:.4f} ({label})" for label, value in thresholds.items())


def _thin(assessment: Assessment) -> list[str]:
    return [f"{each} per {unit}" for unit in tables.UNITS for each in tables.thin_intervals(assessment, unit)]


def _folds(results: RunResults) -> Table:
    summary = results.summary
    whole = summary.out_of_fold.by_image
    return tables.folds_table(summary.folds, results.label, f"probability {summary.threshold:g}", "Each fold", whole)


def _points(results: RunResults) -> list[tuple[str, tuple[Table, Table] | str]]:
    """Return the operating points of each label, or why it has none; the headline label first."""
    evaluations = _in_order(results)

    def of(label: str, points: Sequence[OperatingPoint]) -> tuple[Table, Table]:
        return tables.points_tables(points, evaluations, label, results.stated_prevalences(label))

    return [
        (label, points.reason if isinstance(points, Undefined) else of(label, points))
        for label, points in results.summary.operating_points.items()
    ]


def _subgroups(results: RunResults) -> list[PageFigure]:
    sources = {each.title: (each.results.subgroups, each.results.ensemble) for each in _in_order(results)}
    sources[OUT_OF_FOLD] = (results.summary.subgroups, results.summary.out_of_fold)
    threshold, description = statements.subgroup_threshold(results.summary)
    figures = []
    for where, (subgroups, assessment) in sources.items():
        if subgroups:
            whole = headline(assessment, results.label)
            title = f"Subgroups, {where}"
            overall = None if whole is None else whole.estimate
            table = tables.subgroups_table(subgroups, title, threshold, assessment.groups)
            flagged = statements.flagged_subgroups(subgroups, assessment.groups)
            figures.append(subgroup_figure(title, results.label, subgroups, overall, table, description, flagged))
    return figures


def _gallery(results: RunResults) -> Gallery | None:
    """Return what ``write_error_gallery`` stored, its pictures as data URIs."""
    if results.gallery is None:
        return None
    folder = results.folder / GALLERY

    def inline(image: GalleryImage) -> GalleryImage:
        saliency = None if image.saliency is None else data_uri(folder, image.saliency)
        return replace(image, picture=data_uri(folder, image.picture), saliency=saliency)

    kinds = [replace(kind, errors=tuple(map(inline, kind.errors))) for kind in results.gallery.kinds]
    return replace(results.gallery, kinds=tuple(kinds))


def data_uri(folder: Path, name: str) -> str:
    """A picture of a gallery as a data URI. Raises DataError for a file that is no picture in it."""
    # A name with a folder in it would put any file of this machine into a page that is passed on.
    if not _PICTURE.fullmatch(name):
        raise DataError(f"{folder}: {name!r} is not the name of a picture in it. {_REWRITE}")
    try:
        content = read_bytes(folder / name)
        open_image(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / name}: cannot be read as a picture ({error}). {_REWRITE}") from error
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def _cost(summary: RunSummary) -> str:
    training = summary.training
    return (
        f"{tables.device_hours(training):.3f} {tables.devices(training)}-hours of training; the last command took "
        f"{number(summary.seconds_of_last_command, 1)} s."
    )


def _identity(results: RunResults) -> list[tuple[str, str]]:
    """Return what config.yaml does not say: the fingerprints of data, weights and code."""
    config, environment = results.config.identity(), results.summary.environment
    own = [(key, str(value)) for key, value in results.summary.identity.items() if config.get(key) != value]
    return [*own, ("code", f"{environment.version}, commit {environment.commit}, fingerprint {environment.code}")]


def _record(results: RunResults) -> list[tuple[str, str]]:
    """Return the records of the training and the evaluations; config.yaml stands for the identity."""
    record = asdict(results.record)
    del record["identity"]
    parts = [("Record of the training", json.dumps(record, indent=1))]
    if results.summary.environment != results.record.environment:
        parts.append(("Environment of the metrics", json.dumps(asdict(results.summary.environment), indent=1)))
    for each in results.evaluations:
        log = {name: value for name, value in asdict(each.record).items() if name in _LOGGED}
        log |= {"finished": each.results.finished, "environment": asdict(each.results.environment)}
        parts.append((f"Evaluation {each.record.number}", json.dumps(log, indent=1)))
    return parts
