"""RUN/model/README.md: the model card (Mitchell et al. 2019), with the checklists that a study of it would fill in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from melanoma_dist.config.saved import parse_yaml
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.report import groups, statements, tables
from melanoma_dist.evaluate.report.cells import Cell, Table, told
from melanoma_dist.evaluate.report.checklists import CLAIM, TRIPOD_AI, Item
from melanoma_dist.evaluate.report.facts import facts, headlines
from melanoma_dist.evaluate.report.run_results import RunResults, as_told, headline, read_run_results
from melanoma_dist.storage import atomic

AUTHORS = "to be filled in by the authors"


def write_card(folder: Path, summary: dict[str, Any] | None = None) -> None:
    """Write the model card beside the weights of a run, whole or not at all; see ``write_report``."""
    evidence = read_run_results(folder, summary)
    with as_told(folder):
        text = _rendered(evidence)
    place = folder / "model" / "README.md"
    place.parent.mkdir(exist_ok=True)
    atomic.write_text(place, text)


def _rendered(evidence: RunResults) -> str:
    environment = Environment(  # noqa: S701  # nosec B701  # Markdown, whose cells are escaped below
        loader=PackageLoader("melanoma_dist.evaluate.report", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _escaped
    return environment.get_template("card.md.j2").render(**_contents(evidence))


def _contents(evidence: RunResults) -> dict[str, Any]:
    summary = evidence.summary
    given = answers(evidence)
    points = summary["operating_points"].get(HEADLINE, {"not_chosen": "the label is absent"})
    evaluations = list(evidence.evaluations)
    return {
        "s": summary,
        "label": HEADLINE,
        "synthetic": SYNTHETIC if evidence.synthetic else "",
        "headlines": headlines(evidence),
        "facts": facts(evidence),
        "looks": [f"{each.title}: {statements.look(each)}" for each in evaluations],
        "tables": [_grid(table) for table in _figures(evidence)],
        "about_points": statements.POINTS,
        "points": _grid(tables.points_table(points, evaluations, HEADLINE)) if isinstance(points, list) else None,
        "no_points": None if isinstance(points, list) else points["not_chosen"],
        "limits": statements.limits(evidence),
        "repeats": summary["repeats"] > 1,
        "checklists": [
            ("CLAIM 2024", [(item, _answer(item, given)) for item in CLAIM]),
            ("TRIPOD+AI", [(item, _answer(item, given)) for item in TRIPOD_AI]),
        ],
    }


def _figures(evidence: RunResults) -> list[Table]:
    made = [
        tables.figures_table(
            each.record["ensemble"], "by_image", tables.MAIN, each.record["labels_absent"], f"Unseen: {each.title}"
        )
        for each in evidence.evaluations
    ]
    return [*made, tables.figures_table(evidence.summary["out_of_fold"], "by_image", tables.MAIN, {}, "Out of fold")]


def _grid(table: Table) -> dict[str, Any]:
    """A table as text: caption, header, rows of strings."""
    return {
        "caption": table.caption,
        "header": table.header,
        "rows": [[_text(cell) for cell in row] for row in table.rows],
    }


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _escaped(text: object) -> str:
    """Text that ends no cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _answer(item: Item, given: Mapping[str, str]) -> str:
    return given[item.answer] if item.answer else AUTHORS


def answers(evidence: RunResults) -> dict[str, str]:
    """What the run itself says to items of the checklists, by the names of ``checklists``."""
    summary, data, config = evidence.summary, evidence.summary["data"], parse_yaml(evidence.config)
    return {**_of_data(evidence, data), **_of_training(summary, config), **_of_results(evidence)}


def _of_data(evidence: RunResults, data: Mapping[str, Any]) -> dict[str, str]:
    years = ", ".join(str(year) for year in data["years"])
    source = "synthetic images drawn by the program" if evidence.summary["synthetic"] else f"ISIC challenges of {years}"
    folds = len(evidence.summary["folds"])
    unseen = ", ".join(each.title for each in evidence.evaluations) or "none"
    return {
        "sources": f"{source}; fingerprint of the prepared data {data['fingerprint']}",
        "excluded": f"{data['kept_out']:,} prepared images were kept out of the folds (holdouts, and images that "
        "share a "
        f"known lesion or a found copy with them); the criteria of the challenges: {AUTHORS}",
        "preprocessing": "orientation baked in, RGB, stored as JPEG without metadata; resized as a whole to the square "
        "input by an antialiased bilinear filter; normalised as the backbone expects",
        "subsets": "the whole image; no lesion was segmented or cropped for the evaluation",
        "deidentified": "images are stored without any metadata of their files; de-identification before "
        "publication is "
        "the challenges'",
        "missing": "unknown labels count neither in the loss nor in any figure; metadata is not an input, and its "
        "absence is a subgroup of its own",
        "annotations": f"the challenges' published ground truth ({years})",
        "test_annotations": f"as for the training data; unseen images judged: {unseen}",
        "partitions": f"{folds} folds of whole lesions, stratified by labels and year, drawn by the run's seed; unseen "
        f"images judged: {unseen}",
        "disjoint": "known lesion, with the copies of images that the search finds joined to one lesion; not "
        "patient, whom the tables do not tell",
        "counts": f"{data['images']:,} images of {data['lesions']:,} lesions in the folds, {data['kept_out']:,} images "
        "kept out; numbers of patients are not in the tables",
        "characteristics": f"{groups.attributes(evidence.summary['subgroups'])}, with counts: table of subgroups in "
        "report.html",
        "differences": f"see the tables of subgroups in report.html for the counts of both; unseen images "
        f"judged: {unseen}",
    }  # fmt: skip


def _of_training(summary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    model, schedule = config["model"], config["schedule"]
    optimizer, loss = config["optimizer"], config["loss"]
    libraries = ", ".join(f"{name} {version}" for name, version in summary["made_with"]["libraries"].items() if version)
    folds = len(summary["folds"])
    return {
        "technology": f"deep learning: {summary['backbone']}, {len(summary['labels'])} independent yes-or-no answers",
        "retrospective": "retrospective: published images",
        "model": f"{summary['backbone']} (timm), pooling {model['pooling']}, norm {model['head_norm']}, ReLU, dropout "
        f"{model['dropout']}, a linear layer with a sigmoid for each of {', '.join(summary['labels'])}; all "
        "settings in "
        f"config.yaml; internal validation by {folds} folds",
        "libraries": libraries,
        "initialization": f"trunk: {model['weights']}; head: random by the seed",
        "training": f"{optimizer['optimizer']}, learning rate {optimizer['lr']}, {schedule['schedule']} "
        "schedule, at most "
        f"{schedule['epochs']} epochs, batches of {config['input']['batch_size']}, augmentation "
        f"{config['input']['augment']}, loss {loss['loss']}; code and libraries in record.json",
        "selection": "the epoch with the highest validation AUC of melanoma, in each fold",
        "ensemble": f"mean of the calibrated probabilities of the {folds} folds' models for unseen images; none "
        "out of fold",
        "imbalance": f"class weights {loss['class_weights']}, balanced drawing "
        f"{'on' if config['input']['balance'] else 'off'}; "
        f"probabilities are calibrated afterwards ({summary['calibration']['used']})",
        "output": "a probability of each label, calibrated on out-of-fold predictions; operating points were "
        "chosen there "
        "and frozen",
        "updating": "none",
        "predictors": "the pixels of one dermoscopic image; nothing else is an input",
        "input": "an image that cannot be decoded is refused; nothing is said about images that are no dermoscopy",
        "details": "config.yaml, record.json and summary.json of the run; commit and fingerprint of the code are "
        "in them",
        "availability": "weights: model/fold-*.safetensors of the run, with how to load them in this card; data: "
        "the ISIC "
        f"challenges; publication: {AUTHORS}",
    }  # fmt: skip


def _of_results(evidence: RunResults) -> dict[str, str]:
    summary = evidence.summary
    settings = summary["out_of_fold"]["bootstrap"]
    own = f"AUC of melanoma out of fold {told(headline(summary['out_of_fold']))}"
    unseen = [f"{each.title}: AUC {told(headline(each.record['ensemble']))}" for each in evidence.evaluations]
    entry = summary["out_of_fold"]["by_image"]["labels"].get(HEADLINE, {"positives": 0, "negatives": 0})
    by = f"by {groups.attributes(summary['subgroups'])}, out of fold. {groups.flagged(summary['subgroups'])}"
    points = summary["operating_points"].get(HEADLINE)
    return {
        "metrics": "AUC, average precision, partial AUC, specificity at given sensitivities, sensitivity, specificity, "
        "precision, F1, balanced accuracy, Brier score and calibration error (out of fold: of raw probabilities), net "
        "benefit; per image and per lesion",
        "uncertainty": f"{settings['level']:.0%} intervals by {settings['resamples']:,} resamples of lesions; DeLong's "
        "variance for clustered images; corrected resampled t intervals over folds",
        "robustness": "figures for each fold"
        + (f" and {summary['repeats']} seeds" if summary["repeats"] > 1 else "; seeds were not repeated")
        + f"; subgroups {by}",
        "explainability": "Grad-CAM of the most confident errors, in report.html",
        "internal": own,
        "external": _external(evidence),
        "performance": "; ".join([own, *unseen]),
        "diagnostic": "sensitivity and specificity at frozen operating points, in this card"
        if isinstance(points, list)
        else "no operating point could be chosen",
        "failures": "the most confident errors with their images, in report.html",
        "limits": " ".join(statements.limits(evidence)),
        "fairness": f"AUC {by} Skin types are not in the tables",
        "events": f"{entry['positives']:,} images with and {entry['negatives']:,} without melanoma out of fold",
    }  # fmt: skip


def _external(evidence: RunResults) -> str:
    """Evaluations on another data set; a holdout comes from the run's own, and is none."""
    others = [each for each in evidence.evaluations if each.record["kind"] == "data"]
    said = [f"{each.title}: AUC {told(headline(each.record['ensemble']))}" for each in others]
    return f"{'; '.join(said)}; whether it is external is for the authors to say" if said else "none"
