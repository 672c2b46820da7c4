"""Write RUN/model/README.md: the model card (Mitchell et al. 2019) with the checklists of two reporting guidelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melanoma_dist.artifacts.summary import RunSummary
from melanoma_dist.config.changes import NO_CHANGES
from melanoma_dist.config.label_sets import label_name
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.report import provenance, statements, tables
from melanoma_dist.evaluate.report.cells import estimate_text
from melanoma_dist.evaluate.report.checklists import CLAIM, TRIPOD_AI, Item
from melanoma_dist.evaluate.report.facts import facts, headlines, metadata_fields, trained_images
from melanoma_dist.evaluate.report.provenance import AUTHORS
from melanoma_dist.evaluate.report.run_results import RunResults, headline
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.pages.environment import render
from melanoma_dist.pages.tables import Table
from melanoma_dist.storage import atomic


def write_card(results: RunResults) -> None:
    """Write the model card beside the weights of a run, whole or not at all. The same results give the same bytes."""
    path = results.folder / "model" / "README.md"
    path.parent.mkdir(exist_ok=True)
    atomic.write_text(path, render("evaluate/report/card.md.j2", **_contents(results)))


def _contents(results: RunResults) -> dict[str, Any]:
    summary = results.summary
    texts = answers(results)
    points = summary.operating_points.get(results.label, Undefined("the label is absent"))
    return {
        "s": summary,
        "label": results.label,
        "label_name": label_name(results.label),
        "synthetic": SYNTHETIC if results.synthetic else "",
        "headlines": headlines(results),
        "facts": facts(results),
        "evaluations": [f"{each.title}: {statements.history(each)}" for each in results.evaluations],
        "tables": _tables(results),
        "about_points": statements.POINTS,
        "points": ()
        if isinstance(points, Undefined)
        else tables.points_tables(
            points, results.evaluations, results.label, results.stated_prevalences(results.label)
        ),
        "no_points": points.reason if isinstance(points, Undefined) else None,
        "limits": statements.limits(results),
        "repeats": summary.repeats > 1,
        "checklists": [
            ("CLAIM 2024", [(item, _answer(item, texts)) for item in CLAIM]),
            ("TRIPOD+AI", [(item, _answer(item, texts)) for item in TRIPOD_AI]),
        ],
    }


def _tables(results: RunResults) -> list[Table]:
    parts = [(each.results.ensemble, each.record.labels_absent, f"Unseen: {each.title}")
             for each in results.evaluations]  # fmt: skip
    return [
        tables.metrics_table(assessment, "image", tables.MAIN, absent, where)
        for assessment, absent, where in [*parts, (results.summary.out_of_fold, {}, "Out of fold")]
    ]


def _answer(item: Item, texts: Mapping[str, str]) -> str:
    return texts[item.answer] if item.answer else AUTHORS


def answers(results: RunResults) -> dict[str, str]:
    """Return the run's answers to items of the checklists, by the names in ``checklists``."""
    return {**_of_data(results), **_of_training(results.summary, results.config), **_of_results(results)}


def _of_data(results: RunResults) -> dict[str, str]:
    data = results.summary.data
    folds = len(results.summary.folds)
    unseen = ", ".join(each.title for each in results.evaluations) or "none"
    fields, region = metadata_fields(results.summary), results.config.region
    return {
        "sources": f"{provenance.sources(results.summary)}; fingerprint of the prepared data {data.fingerprint}",
        "excluded": f"{data.kept_out:,} prepared images kept out of the folds ({provenance.KEPT_OUT}); the "
        f"criteria of the collections: {AUTHORS}",
        "preprocessing": "orientation baked in, RGB, stored as JPEG without metadata; resized as a whole to the square "
        "input by an antialiased bilinear filter; normalised as the backbone expects",
        "subsets": f"what {region.flags} shows of an image, by the masks of a segmentation run"
        if region.needs_lesions
        else "the whole image; no lesion was segmented or cropped for the evaluation",
        "deidentified": provenance.deidentified(results.summary),
        "missing": "unknown labels count neither in the loss nor in any metric; "
        f"{'unknown metadata has an input of its own' if fields else 'metadata is not an input'}, and its absence is a "
        "subgroup of its own",
        "annotations": provenance.ground_truth(results.summary),
        "test_annotations": f"as for the training data; unseen images evaluated: {unseen}",
        "partitions": f"{folds} folds of {results.summary.out_of_fold.resampled}, stratified by labels and year, "
        f"drawn by the run's seed; unseen images evaluated: {unseen}",
        "disjoint": "known lesion, with the copies of images that the search finds joined to one lesion; "
        + ("not patient: the tables have none" if data.patients is None else "known patient")
        + "".join(f"; {text}" for text in data.incomplete_tables),
        "counts": f"{trained_images(data)} in the folds, {data.kept_out:,} images "
        f"kept out; {'the tables have no patients' if data.patients is None else f'{data.patients:,} known patients'}",
        "characteristics": f"{statements.subgroup_attributes(results.summary.subgroups)}, with counts: "
        "table of subgroups in report.html",
        "differences": f"see the tables of subgroups in report.html for the counts of both; unseen images "
        f"evaluated: {unseen}",
    }  # fmt: skip


def _of_training(summary: RunSummary, config: RunConfig) -> dict[str, str]:
    model, optimizer = config.model, config.optimizer
    libraries = ", ".join(f"{name} {version}" for name, version in summary.environment.libraries.items() if version)
    folds, fields = len(summary.folds), metadata_fields(summary)
    norms = ", statistics of its batch norms kept" if model.freezes_trunk_norms() else ""
    changes = config.schedule.changes
    changed = "" if changes == NO_CHANGES else f", changes from an epoch on {changes.replace(',', ' ')}"
    return {
        "technology": f"deep learning: {summary.backbone}, {len(summary.labels)} independent sigmoid outputs",
        "retrospective": "retrospective: images that existed before",
        "model": f"{summary.backbone} (timm), pooling {model.pooling}, norm {model.head_norm}, ReLU, dropout "
        f"{model.dropout}, a linear layer with a sigmoid for each of {', '.join(summary.labels)}; all settings "
        f"in config.yaml; internal validation by {folds} folds",
        "libraries": libraries,
        "initialization": f"trunk: {model.weights}{norms}; head: random by the seed",
        "training": f"{optimizer.optimizer}, learning rate {optimizer.lr}, {config.schedule.schedule} schedule, "
        f"at most {config.schedule.epochs} epochs, batches of {config.input.batch_size}, augmentation "
        f"{config.input.augment}, loss {config.loss.loss}{changed}; code and libraries in record.json",
        "selection": f"the epoch with the highest validation {summary.headline}, in each fold",
        "ensemble": f"mean of the calibrated probabilities of the {folds} folds' models for unseen images; none out "
        "of fold",
        "imbalance": f"class weights {config.loss.class_weights}, balanced drawing "
        f"{'on' if config.input.balance else 'off'}; "
        f"probabilities are calibrated afterwards ({summary.calibration.used})",
        "output": "a probability of each label, calibrated on out-of-fold predictions; operating points chosen there "
        "and fixed",
        "updating": "none",
        "predictors": "the pixels of one dermoscopic image; "
        + (f"metadata: {', '.join(fields)}, each may be unknown" if fields else "nothing else is an input"),
        "input": "an image that cannot be decoded is refused; nothing is known about images that are not dermoscopic",
        "details": "config.yaml, record.json and summary.json of the run, with commit and fingerprint of the code",
        "availability": "weights: model/fold-*.safetensors of the run; this card says how to load them; data: "
        f"{provenance.sources(summary)}; publication: {AUTHORS}",
    }  # fmt: skip


def _of_results(results: RunResults) -> dict[str, str]:
    summary, label = results.summary, results.label
    name = label_name(label)
    settings = summary.out_of_fold.bootstrap
    own = f"AUC of {name} out of fold {estimate_text(headline(summary.out_of_fold, label))}"
    unseen = [
        f"{each.title}: AUC {estimate_text(headline(each.results.ensemble, results.label))}"
        for each in results.evaluations
    ]
    entry = summary.out_of_fold.by_image.labels.get(label)
    positives, negatives = (entry.positives, entry.negatives) if entry else (0, 0)
    attributes = statements.subgroup_attributes(summary.subgroups)
    by = f"by {attributes}, out of fold. {statements.flagged_subgroups(summary.subgroups, summary.out_of_fold.groups)}"
    points = summary.operating_points.get(label)
    return {
        "metrics": "AUC, average precision, partial AUC, specificity at given sensitivities, sensitivity, specificity, "
        "precision, F1, balanced accuracy, Brier score and calibration error (out of fold: of raw probabilities), net "
        "benefit; per image and per lesion",
        "uncertainty": f"{settings.level:.0%} intervals by {settings.resamples:,} resamples of "
        f"{summary.out_of_fold.resampled}; DeLong's variance for clustered images; corrected resampled "
        "t intervals over folds",
        "robustness": "metrics of each fold"
        + (f" and {summary.repeats} seeds" if summary.repeats > 1 else "; seeds were not repeated")
        + f"; subgroups {by}",
        "explainability": "Grad-CAM of the most confident errors, in report.html",
        "internal": own,
        "external": _external(results),
        "performance": "; ".join([own, *unseen]),
        "diagnostic": "sensitivity and specificity at the operating points, in this card"
        if isinstance(points, tuple)
        else "no operating point could be chosen",
        "failures": "the most confident errors with their images, in report.html",
        "limits": " ".join(statements.limits(results)),
        "fairness": f"AUC {by} The tables have no skin types",
        "events": f"{positives:,} images with and {negatives:,} without {name} out of fold",
    }  # fmt: skip


def _external(results: RunResults) -> str:
    """Name the evaluations on other data sets; a holdout comes from the run's own and is not external."""
    others = [each for each in results.evaluations if each.record.kind == "data"]
    texts = [f"{each.title}: AUC {estimate_text(headline(each.results.ensemble, results.label))}" for each in others]
    return f"{'; '.join(texts)}; the authors decide whether it is external" if texts else "none"
