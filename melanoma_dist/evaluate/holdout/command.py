"""The `evaluate` command as a story: open the run, choose images, prove them unseen, record the look, look, tell."""

from __future__ import annotations

from typing import Any

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.predictions import write_predictions
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.holdout import access_log, display
from melanoma_dist.evaluate.holdout.access_history import EVALUATIONS
from melanoma_dist.evaluate.holdout.contamination import refuse_trained
from melanoma_dist.evaluate.holdout.metrics import judged, tables
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.images import Chosen, choose_all, choose_holdout
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run
from melanoma_dist.storage.locks import LOCK, lock_file


def evaluate(settings: EvaluateConfig) -> None:
    """Judge a finished run by images that none of its folds has seen; everything is checked before the look counts."""
    subject = open_trained_run(settings.run)
    chosen = _choose(settings, subject)
    chosen.images.check_bytes()
    ensemble = Ensemble.of(subject, one_process(settings.gpus, settings.decode_threads))
    _introduce(subject, chosen, settings.tta)
    with _alone(subject.folder):
        look = access_log.begin(subject, chosen, settings.tta, ensemble.weights_sha256)
        _tell_earlier(look)
        predictions = ensemble.predict(chosen.images, settings.tta, settings.batch_size)
        made = tables(chosen.images, predictions)
        write_predictions(made.ensemble, look.predictions)
        write_predictions(pd.concat(made.raw, ignore_index=True), look.folds)
        whole = look.finish(judged(subject, chosen.images, made, settings.prevalence))
    display.show(whole)
    _renew_report(subject.folder)
    console.info(
        f"figures: {look.path / 'evaluation.json'}  predictions: {look.predictions}  report: {subject.folder.report}"
    )


def _choose(settings: EvaluateConfig, subject: TrainedRun) -> Chosen:
    """The images that are asked for, proven unseen."""
    own = subject.dataset(settings.dataset)
    if settings.data is not None:
        chosen = choose_all(open_dataset(settings.data), settings.data, subject.labels)
    else:
        chosen = choose_holdout(own, settings.holdout or "", subject.labels)
    refuse_trained(chosen.images, subject.trained(own))
    return chosen


def _introduce(subject: TrainedRun, chosen: Chosen, tta: int) -> None:
    table, config = chosen.images.table, subject.config
    console.info(
        f"{subject.folder.path}: {config.data.folds} folds of {config.model.backbone} on {chosen.what}: {len(table)} "
        f"images of {table['group'].nunique()} lesions" + (f", {tta} orientations of each" if tta > 1 else "")
    )
    if chosen.unlabelled:
        console.info(f"{chosen.unlabelled} images are left out: none of the run's labels is known of them.")
    console.info("checked: none of these images, of their lesions or of their known copies was trained on")


def _alone(folder: RunFolder) -> Any:
    place = folder.path / EVALUATIONS
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        why = f"the look cannot be recorded there ({error.strerror or error})"
        raise ConfigError(f"evaluate {folder.path}: {why}. Nothing was looked at.") from error
    return lock_file(
        place / LOCK, ConfigError(f"evaluate {folder.path}: another command is evaluating it. Wait for it.")
    )


def _tell_earlier(look: access_log.Evaluation) -> None:
    earlier = look.record["earlier"]
    if not earlier:
        console.info(
            "No record in this folder of runs tells of an earlier look at any of these images; looks made elsewhere "
            "cannot be known."
        )
        return
    console.info(
        f"This is look {look.ordinal} at these images: {_known(look.record)}.{_gone(earlier)} What was changed or "
        "chosen after an earlier look makes these figures optimistic; the report says so."
    )


def _known(found: dict[str, Any]) -> str:
    """How many of the images were looked at before, and when first."""
    first, images = found["earlier"][0], found["data"]["images"]
    if first["begun"] is None:
        return f"no record that is left tells of any of the {images}, but one is missing"
    when = f"the first was on {first['begun'][:10]} (evaluation {first['number']} of {first['run']})"
    return f"{found['seen_before']} of {images} were looked at before; {when}"


def _gone(earlier: list[dict[str, Any]]) -> str:
    """Which looks have lost their records; empty where none has."""
    names = [f"evaluation {each['number']} of {each['run']}" for each in earlier if each.get("deleted")]
    if not names:
        return ""
    return f" Records deleted or moved away: {', '.join(names)}. Which images were seen there is not known; it counts."


def _renew_report(folder: RunFolder) -> None:
    """Write the run's page and model card anew, with this look in them."""
    write_report(folder.path)
    write_card(folder.path)
