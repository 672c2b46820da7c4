"""The start of an evaluation: what is evaluated is said and logged before any image is scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.artifacts.evaluation import EvaluationRecord
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.groups import groups_in_words
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.holdout.access_history import EVALUATIONS
from melanoma_dist.evaluate.holdout.access_log import Evaluation, log_evaluation
from melanoma_dist.inference.images import Selection
from melanoma_dist.inference.segmenter import TrainedSegmenter
from melanoma_dist.inference.trained_run import TrainedRun, other_orientations
from melanoma_dist.storage.locks import LOCK, lock_file


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
