"""Finalize a run: merge its folds' predictions, fit the decision rules, write metrics and report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from melanoma_dist.artifacts.decision_rules import write_decision_rules
from melanoma_dist.artifacts.epochs import EpochRecord, read_epochs
from melanoma_dist.artifacts.integrity import hashes_of
from melanoma_dist.artifacts.metadata_use import MetadataUse
from melanoma_dist.artifacts.predictions import (
    WITHOUT_METADATA,
    arrays,
    read_predictions,
    write_csv,
    write_predictions,
)
from melanoma_dist.artifacts.run_folder import RunFolder, trainings
from melanoma_dist.artifacts.run_record import current_environment, now
from melanoma_dist.artifacts.summary import AUC_OF, FoldTraining, RunSummary, SeedRepeats, TrainedData, write_summary
from melanoma_dist.config.metadata import field_names
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.labels import targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.decision_rules import fit_decision_rules, with_calibrated
from melanoma_dist.evaluate.incidents import incidents
from melanoma_dist.evaluate.metadata import metadata_use, shortcuts_in_images
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.error_gallery import write_error_gallery
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.run_results import with_files
from melanoma_dist.evaluate.report.tensorboard import write_run_events
from melanoma_dist.evaluate.summary import check_truth, out_of_fold, summarise
from melanoma_dist.evaluate.under_training import under_trained
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.metrics.classification import Settings, compute_metrics
from melanoma_dist.metrics.cross_validation import OverFolds, VarianceComponents, fold_spread, variance_components
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.lesions import lesions_of
from melanoma_dist.train.region import load_regions
from melanoma_dist.world import World


def finalize(config: RunConfig, dataset: Dataset, folds: pd.DataFrame, folder: RunFolder, seconds: float) -> RunSummary:
    """Compute the metrics of a run from the predictions of its finished folds, and write them, the summary last.

    ``seconds`` is what the command took. Raises DataError unless each image was predicted once, by the right fold.
    """
    labels = config.data.label_set()
    about = dataset.manifest.set_index("image_id")
    tables = [_collect(place, config, folds, about) for _, place in trainings(config, folder)]
    table = tables[0]
    rules = fit_decision_rules(table, labels)
    write_decision_rules(folder.path, rules)
    histories = [read_epochs(folder.path / f"fold-{fold}") for fold in range(config.data.folds)]
    summary = RunSummary(
        synthetic=dataset.synthetic,
        backbone=config.model.backbone,
        seed=config.seed,
        repeats=config.repeats,
        data=trained_data(dataset, folds),
        threshold=config.threshold,
        labels=tuple(labels),
        headline=AUC_OF + labels.headline,
        **summarise(table, about, labels, config.threshold, rules)._asdict(),
        seed_repeats=_seed_repeats(tables, labels, config),
        training=fold_trainings(histories),
        advice=under_trained(histories, config.schedule.epochs),
        metadata=_metadata(config, folds, folder, table, about),
        incidents=(*incidents(config, folder), *_regions(config, dataset, folds, folder)),
        seconds_of_last_command=round(seconds, 1),
        identity=folder.identity,
        environment=current_environment(),
        finished=now(),
        files=hashes_of(*folder.hashed),
    )
    lesions = _lesions(folder)
    ensemble = Ensemble(folder.path, config, dataset.fingerprint, rules, dataset.size, World(), lesions)
    write_error_gallery(folder.path, ensemble, dataset, table, config.threshold)
    results = with_files(folder.path, summary, table)
    write_report(results)
    write_card(results)
    write_run_events(results)
    write_summary(folder.path, summary)
    return summary


def _collect(place: Path, config: RunConfig, folds: pd.DataFrame, about: pd.DataFrame) -> pd.DataFrame:
    """Merge and check the predictions of one training's folds, and write them as one table."""
    labels = config.data.label_set()
    parts = [read_predictions(place / f"fold-{fold}" / "predictions.parquet") for fold in range(config.data.folds)]
    table = with_calibrated(out_of_fold(parts, folds), labels)
    check_truth(table, targets(about.loc[table["image_id"]], labels), labels)
    write_predictions(table, place / "predictions.parquet")
    write_csv(table, place / "predictions.csv")
    return table


def _metadata(
    config: RunConfig, folds: pd.DataFrame, folder: RunFolder, table: pd.DataFrame, about: pd.DataFrame
) -> MetadataUse | None:
    """What metadata add and say without an image; of a model that takes them, writes its predictions without."""
    fields, label = field_names(config.model.metadata), config.data.label_set().headline
    if not fields:
        return shortcuts_in_images(table, about, label)
    places = [folder.path / f"fold-{fold}" / WITHOUT_METADATA for fold in range(config.data.folds)]
    without = out_of_fold([read_predictions(place) for place in places], folds)
    write_predictions(without, folder.path / WITHOUT_METADATA)
    return metadata_use(table, without, about, fields, label)


def trained_data(dataset: Dataset, folds: pd.DataFrame) -> TrainedData:
    """Describe the data set of a run, and its images in ``folds``."""
    images = dataset.manifest[dataset.manifest["image_id"].isin(folds["image_id"])]
    return TrainedData(
        folder=dataset.folder.name,
        fingerprint=dataset.fingerprint,
        size=dataset.size,
        images=len(folds),
        lesions=int(lesions_of(images).nunique()),
        patients=int(images["patient_id"].nunique()) if "patient_id" in images else None,
        kept_out=len(dataset.manifest) - len(folds),
        years=tuple(sorted({year for text in dataset.manifest["years"].unique() for year in text.split("+")})),
        incomplete_tables=dataset.incomplete_tables,
        terms=dict(dataset.terms),
        lesions_unknown=int(images["lesion_id"].isna().sum()),
    )


def _lesions(folder: RunFolder) -> str | None:
    lesions = folder.identity.get("lesions")
    return None if lesions is None else str(lesions)


def _regions(config: RunConfig, dataset: Dataset, folds: pd.DataFrame, folder: RunFolder) -> Iterator[str]:
    """How many images of the folds were seen whole although the run sees lesions."""
    if regions := load_regions(config, dataset, _lesions(folder)):
        yield regions.sentence(dataset.manifest["image_id"].isin(folds["image_id"]).to_numpy())


def _seed_repeats(tables: list[pd.DataFrame], labels: tuple[str, ...], config: RunConfig) -> SeedRepeats | None:
    """AUCs [folds][seeds] of each label, and where their variance comes from."""
    if len(tables) < 2:
        return None
    settings = Settings()
    by_seed = [
        [compute_metrics(*arrays(rows, labels), labels, settings).labels for _, rows in table.groupby("fold")]
        for table in tables
    ]
    auc = {
        label: tuple(tuple(entry[label].auc for entry in fold) for fold in zip(*by_seed, strict=True))
        for label in labels
    }
    return SeedRepeats(
        seeds=tuple(config.seed + repeat for repeat in range(config.repeats)),
        auc=auc,
        components={label: _components(values) for label, values in auc.items()},
        over_folds={label: _over_all(values) for label, values in auc.items()},
    )


_NO_AUC = Undefined("some folds have no AUC")


def _components(values: Sequence[Sequence[float | None]]) -> VarianceComponents | Undefined:
    known = _all_known(values)
    if known is None:
        return _NO_AUC
    try:
        return variance_components(known)
    except ConfigError as error:
        return Undefined(str(error))


def _over_all(values: Sequence[Sequence[float | None]]) -> OverFolds | Undefined:
    known = _all_known(values)
    if known is None:
        return _NO_AUC
    spread = fold_spread([value for row in known for value in row], repeats=len(known[0]))
    if spread.mean is None or spread.sd is None or spread.low is None or spread.high is None:
        return Undefined(spread.no_interval)
    return OverFolds(spread.mean, spread.sd, spread.low, spread.high)


def _all_known(values: Sequence[Sequence[float | None]]) -> list[list[float]] | None:
    known = [[value for value in row if value is not None] for row in values]
    return known if [len(row) for row in known] == [len(row) for row in values] else None


def fold_trainings(histories: Sequence[Sequence[EpochRecord]]) -> dict[int, FoldTraining]:
    """The cost of each fold, from its epochs."""
    training = {}
    for fold, epochs in enumerate(histories):
        training[fold] = FoldTraining(
            epochs=len(epochs),
            best_epoch=epochs[-1].best_epoch,
            seconds=round(sum(epoch.seconds for epoch in epochs), 1),
            device=epochs[-1].device,
            device_seconds=round(sum(epoch.seconds * epoch.devices for epoch in epochs), 1),
            images_per_s=round(sum(epoch.images_per_s for epoch in epochs) / len(epochs), 1),
            input_wait_share=round(sum(epoch.wait_share for epoch in epochs) / len(epochs), 4),
        )
    return training
