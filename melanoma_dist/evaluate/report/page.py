"""``report.html``: a finished run for clinicians and statisticians, one self-contained file, good on paper too."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.report import groups, statements, tables
from melanoma_dist.evaluate.report.cells import NAMES, Table, number
from melanoma_dist.evaluate.report.facts import facts, headlines
from melanoma_dist.evaluate.report.figures import OUT_OF_FOLD, Missing, ReportFigure, exhibits
from melanoma_dist.evaluate.report.run_figures import forest, run_figures
from melanoma_dist.evaluate.report.run_results import (
    GALLERY,
    Evaluation,
    RunResults,
    as_told,
    headline,
    read_run_results,
)
from melanoma_dist.pages.svg import svg
from melanoma_dist.storage import atomic
from melanoma_dist.storage.images import open_image
from melanoma_dist.storage.untrusted import read_bytes

_NO_INCIDENTS = "In no fold was a step skipped, a micro-batch halved or an image left out."
_PICTURE = re.compile(r"[\w-]+\.jpg", re.ASCII)


class Part(NamedTuple):
    """All figures of one set of images."""

    title: str
    note: str
    warning: str
    tables: list[Table]
    thin: list[str]


def write_report(folder: Path, summary: dict[str, Any] | None = None) -> None:
    """Write RUN/report.html from what a run left behind, whole or not at all.

    Needs no images: pictures are those that ``write_error_gallery`` kept. The same files give the same bytes.
    ``summary`` is that of a run whose summary.json is not written yet. Raises DataError for a run that is not finished
    or whose files cannot be read.
    """
    evidence = read_run_results(folder, summary)
    with as_told(folder):
        text = _rendered(evidence)
    atomic.write_text(folder / "report.html", text)


def _rendered(evidence: RunResults) -> str:
    environment = Environment(
        loader=PackageLoader("melanoma_dist.evaluate.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _markup
    return environment.get_template("page.html.j2").render(**_contents(evidence))


def _markup(exhibit: ReportFigure) -> Markup:
    drawn = svg(exhibit.figure)
    return Markup(drawn)  # noqa: S704  # nosec B704  # made here; its texts are escaped by matplotlib


def _contents(evidence: RunResults) -> dict[str, Any]:
    summary = evidence.summary
    shown = exhibits(evidence)
    return {
        "s": summary,
        "name": evidence.folder.resolve().name,
        "label": HEADLINE,
        "synthetic": SYNTHETIC if evidence.synthetic else "",
        "headlines": headlines(evidence),
        "facts": facts(evidence),
        "claims": statements.leakage(evidence),
        "looks": [(each.title, statements.look(each), each.look > 1) for each in evidence.evaluations],
        "parts": [*(_unseen(each) for each in _in_order(evidence)), _out_of_fold(evidence)],
        "official": tables.official_table(_assessments(evidence)),
        "spread": [_folds(evidence), tables.over_folds_table(summary["over_folds"])],
        "repeats": summary["repeats_of"],
        "variance": tables.variance_table(summary["repeats_of"]) if summary["repeats_of"] else None,
        "curves": [each for each in shown if isinstance(each, ReportFigure)],
        "missing": [each for each in shown if isinstance(each, Missing)],
        "points": _points(evidence),
        "about_points": statements.POINTS,
        "course": run_figures(evidence),
        "subgroups": _subgroups(evidence),
        "gallery": _gallery(evidence),
        "training": tables.training_table(summary["training"]),
        "incidents": " ".join(summary["incidents"]) or _NO_INCIDENTS,
        "cost": _cost(summary),
        "record": _record(evidence),
        "limits": statements.limits(evidence),
    }


def _in_order(evidence: RunResults) -> list[Evaluation]:
    lead = evidence.leading()
    return sorted(evidence.evaluations, key=lambda each: each is not lead)


def _assessments(evidence: RunResults) -> dict[str, Mapping[str, Any]]:
    unseen = {each.title: each.record["ensemble"] for each in _in_order(evidence)}
    return {**unseen, OUT_OF_FOLD: evidence.summary["out_of_fold"]}


def _unseen(evaluation: Evaluation) -> Part:
    record, assessment = evaluation.record, evaluation.record["ensemble"]
    made = _figures(assessment, record["labels_absent"], evaluation.name)
    if record.get("prevalence") is not None:
        where = f"{evaluation.name} at a prevalence of {record['prevalence']:g}"
        made.append(tables.figures_table(assessment, "by_image", ("ppv", "npv"), record["labels_absent"], where))
    if record["folds"]:
        caption = f"{evaluation.name}, each fold alone"
        made.append(tables.folds_table(record["folds"], "the frozen points", caption, assessment["by_image"]))
    note = (
        "Mean of the calibrated probabilities of all folds; calibration and thresholds were fixed before, out of fold. "
        f"{_bootstrap(assessment)} Calls at {_thresholds(assessment)}."
    )
    warning = statements.look(evaluation) if evaluation.look > 1 else ""
    return Part(f"Unseen images: {evaluation.title}", note, warning, made, _thin(assessment))


def _out_of_fold(evidence: RunResults) -> Part:
    assessment = evidence.summary["out_of_fold"]
    note = (
        f"Raw probabilities of the fold that did not train on the lesion; {statements.OPTIMISTIC}. "
        f"{_bootstrap(assessment)} "
        f"Calls at {_thresholds(assessment)}."
    )
    made = [_of_raw(table) for table in _figures(assessment, {}, OUT_OF_FOLD)]
    return Part("Out of fold", note, "", made, _thin(assessment))


def _of_raw(table: Table) -> Table:
    """The table with its figures of the probabilities themselves named as those of raw ones."""
    names = {NAMES[name]: f"{NAMES[name]} of raw probabilities" for name in ("brier", "calibration_error")}
    return table._replace(header=[names.get(name, name) for name in table.header])


def _figures(assessment: Mapping[str, Any], absent: Mapping[str, str], where: str) -> list[Table]:
    return [
        tables.figures_table(assessment, unit, names, absent, where)
        for unit in ("by_image", "by_lesion")
        for names in (tables.MAIN, tables.MORE)
    ]


def _bootstrap(assessment: Mapping[str, Any]) -> str:
    settings = assessment["bootstrap"]
    said = (
        f"Intervals of {settings['level']:.0%} by {settings['resamples']:,} resamples of whole lesions, beside the AUC "
        "also by DeLong's variance for clustered images (Obuchowski 1997)."
    )
    count = assessment["contradictory"]
    return said + (
        f" {count} answers contradict each other within a lesion and count per image alone." if count else ""
    )


def _thresholds(assessment: Mapping[str, Any]) -> str:
    found = assessment["settings"]["thresholds"]
    if len(set(found.values())) == 1:
        return f"probability {next(iter(found.values())):g}"
    return "probability " + ", ".join(f"{value:.4f} ({label})" for label, value in found.items())


def _thin(assessment: Mapping[str, Any]) -> list[str]:
    return [
        f"{each} per {word}" for unit, word in tables.UNITS.items() for each in tables.thin_intervals(assessment, unit)
    ]


def _folds(evidence: RunResults) -> Table:
    summary = evidence.summary
    whole = summary["out_of_fold"]["by_image"]
    return tables.folds_table(summary["folds"], f"probability {summary['threshold']:g}", "Each fold", whole)


def _points(evidence: RunResults) -> list[tuple[str, Table | str]]:
    """The operating points of each label, or why there are none; the headline label first."""
    return [
        (
            label,
            tables.points_table(points, _in_order(evidence), label)
            if isinstance(points, list)
            else str(points["not_chosen"]),
        )
        for label, points in evidence.summary["operating_points"].items()
    ]


def _subgroups(evidence: RunResults) -> list[ReportFigure]:
    sources = {each.title: (each.record["subgroups"], each.record["ensemble"]) for each in _in_order(evidence)}
    sources[OUT_OF_FOLD] = (evidence.summary["subgroups"], evidence.summary["out_of_fold"])
    at, called = groups.threshold(evidence.summary)
    made = []
    for where, (subgroups, assessment) in sources.items():
        if subgroups:
            whole = headline(assessment)
            title = f"Subgroups, {where}"
            table = tables.subgroups_table(subgroups, title, at)
            made.append(forest(title, subgroups, None if whole is None else whole["estimate"], table, called))
    return made


def _gallery(evidence: RunResults) -> dict[str, Any] | None:
    """What ``write_error_gallery`` kept, its pictures as data URIs."""
    if evidence.gallery is None:
        return None
    folder = evidence.folder / GALLERY
    kinds = [
        {
            **kind,
            "errors": [
                {**each, "picture": _uri(folder, each["picture"]), "saliency": _uri(folder, each["saliency"])}
                for each in kind["errors"]
            ],
        }
        for kind in evidence.gallery["kinds"]
    ]
    return {**evidence.gallery, "kinds": kinds}


def _uri(folder: Path, name: str | None) -> str | None:
    if name is None:
        return None
    # A name with a folder in it would put any file of this machine into a page that others get.
    if not _PICTURE.fullmatch(name):
        raise ValueError(f"{name!r} is no picture of {folder}")
    content = read_bytes(folder / name)
    open_image(content)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def _cost(summary: Mapping[str, Any]) -> str:
    training = summary["training"]
    return (
        f"{tables.device_hours(training):.3f} {tables.devices(training)}-hours of training; the last command took "
        f"{number(summary['seconds_of_last_command'], 1)} s."
    )


def _record(evidence: RunResults) -> list[tuple[str, str]]:
    """What is needed to do it again."""
    made_with = {"identity": evidence.summary["identity"], "made_with": evidence.summary["made_with"]}
    parts = [
        ("Command", "python launch.py --config config.yaml"),
        ("config.yaml", evidence.config),
        ("Identity, code and libraries of the figures", json.dumps(made_with, indent=1)),
        ("Record of the training", json.dumps(evidence.record, indent=1)),
    ]
    for each in evidence.evaluations:
        kept = ("number", "what", "kind", "begun", "finished", "data", "tta", "images_sha256", "models", "earlier",
                "made_with")  # fmt: skip
        parts.append(
            (f"Evaluation {each.record['number']}", json.dumps({key: each.record[key] for key in kept}, indent=1))
        )
    return parts
