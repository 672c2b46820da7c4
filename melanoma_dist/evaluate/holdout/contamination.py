"""Find images that a run was trained on: the images themselves, their lesions, their patients or copies of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from safetensors import SafetensorError, safe_open

from melanoma_dist.artifacts.evaluation import examples
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.segmenter_copy import SEGMENTER
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.data.duplicates import near_duplicates
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import ConfigError, DataError, UserError
from melanoma_dist.inference.images import Images, Selection
from melanoma_dist.inference.segmenter import TrainedSegmenter
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run, trained_images
from melanoma_dist.storage.images import open_image

_SHARED = {
    "image_id": "it was trained on itself",
    "source_sha256": "its file was, as {other}",
    "lesion_id": "its lesion {value} was, on {other}",
    "patient_id": "its patient {value} was, on {other}",
    "group": "its group {value} was, with {other}",
}
"""The columns that identify two images as related, and the reason to show. ``other`` is an image of the training."""
_ARCHIVE = "ISIC Archive"
"""Who gives ids of the form ISIC_0000000, in all collections."""


def related_images(images: Images, trained: Sequence[Images]) -> dict[str, str]:
    """Map the ids of those of ``images`` that are related to trained ones to the reasons, in their order.

    An image counts with its whole group: a copy of a trained image also gives away the other photographs of its
    lesion. Therefore the check covers the groups of ``images`` in their own data set, not only ``images``.
    """
    manifest = images.dataset.manifest
    groups = set(images.table["group"])
    around = Images.of(images.dataset, manifest["group"].isin(groups).to_numpy())
    reasons: dict[str, str] = {}
    for each in trained:
        copies = _copies(around, each)
        reasons = {**copies, **_shared_identity(around.table, each.table, set(copies)), **reasons}
    reasons = _over_groups(around.table, reasons)
    return {name: reasons[name] for name in images.table["image_id"] if name in reasons}


def exclude_related(selection: Selection, trained: Sequence[Images], exclude: bool) -> Selection:
    """Leave the images that are related to trained ones out of a selection.

    Raises DataError, with the first few and the reasons, if there are any and ``exclude`` is false, or if none remain.
    """
    images = selection.images
    related = related_images(images, trained)
    if not related:
        return selection
    fault = (
        f"{len(related)} of {len(images.rows)} images are not unseen, for the run was trained on them, on their "
        f"lesions, on their patients or on copies of them: {examples(related)}. Metrics on them would mean nothing. "
        "No image was scored."
    )
    if len(related) == len(images.rows):
        raise DataError(f"{fault} Name a holdout, or another data set.")
    if not exclude:
        raise DataError(f"{fault} Leave them out with --exclude-seen, or name a holdout or another data set.")
    unseen = images.rows[~images.table["image_id"].isin(list(related)).to_numpy()]
    return replace(selection, images=Images(images.dataset, unseen), related=related)


def training_images(run: TrainedRun | TrainedSegmenter, own: Dataset) -> list[Images]:
    """The images that a run was trained on, those of its segmenter, and those of its start weights from another run.

    ``own`` is the run's data set. Raises ConfigError if the images of the other run cannot be known.
    """
    return [run.trained(own), *_seen_by_segmenter(run, own), *images_of_weights(run.config.model)]


def _seen_by_segmenter(run: TrainedRun | TrainedSegmenter, own: Dataset) -> list[Images]:
    """The images that the segmenter of a run that sees lesions was trained on, which may have no label."""
    place = run.folder.path / SEGMENTER
    if not place.is_dir():
        return []
    return [trained_images(RunFolder(place, {}), own)]


def images_of_weights(model: ModelConfig) -> list[Images]:
    """The images that the file of ``--weights`` was trained on if it is the model of a run, else nothing.

    Raises ConfigError if they cannot be known.
    """
    path = _existing_file(model)
    if path is None or not _is_model_of_run(path):
        return []
    try:
        run = open_trained_run(path.resolve().parents[1])
        return training_images(run, run.dataset(run.config.data.data))
    except UserError as error:
        raise ConfigError.of(
            "weights", model.weights,
            f"is the model of a run, and which images it was trained on is not known ({error})",
            "Name RUN/model/fold-N.safetensors in the folder of the finished run, with its data set in its place.",
        ) from error  # fmt: skip


def refuse_weights_that_saw(dataset: Dataset, model: ModelConfig) -> None:
    """Raise ConfigError if ``--weights`` is the model of a run that was trained on images of a data set."""
    trained = images_of_weights(model)
    images = Images.of(dataset, np.ones(len(dataset.manifest), dtype=bool))
    related = related_images(images, trained) if trained else {}
    if related:
        rule = (
            f"is the model of a run that was trained on {len(related)} of the {len(images.rows)} images, on their "
            f"lesions, patients or copies: {examples(related)}. A fold would validate on images that its start has seen"
        )
        remedy = "Start from --weights imagenet, or from a run on other images."
        raise ConfigError.of("weights", model.weights, rule, remedy)


def _existing_file(model: ModelConfig) -> Path | None:
    """The file of ``--weights``, None if there is none any more."""
    try:
        return model.weights_file()
    except ConfigError:
        return None


def _is_model_of_run(path: Path) -> bool:
    try:
        with safe_open(path, "numpy") as file:
            return {"fold", "data"} <= (file.metadata() or {}).keys()
    except (OSError, SafetensorError):  # another kind of file
        return False


def _shared_identity(table: pd.DataFrame, trained: pd.DataFrame, copies: set[str]) -> dict[str, str]:
    """Map the ids of images that share an identity with a trained image to the plainest reason.

    Both tables are rows of a manifest; ``copies`` has the ids of copies of trained images. An optional column counts
    where both have it. Blank and missing values are unknown, and equal nothing. The ids of two collections are compared
    only if the same hand gave them: image 7 of two hospitals is not one image, nor is their patient 7.
    """
    reasons: dict[str, str] = {}
    givers, trained_givers = _id_givers(table), _id_givers(trained)
    foreign = _contradicted(table.assign(giver=givers), trained.assign(giver=trained_givers), copies)
    for column, reason in _SHARED.items():
        if column not in table or column not in trained:
            continue
        hashes = column == "source_sha256"
        names = zip(trained_givers, trained[column], trained["image_id"], strict=True)
        known = {("" if hashes else giver, value): other for giver, value, other in names}
        for giver, name, value in zip(givers, table["image_id"], table[column], strict=True):
            key = ("" if hashes else giver, value)
            comparable = hashes or giver not in foreign
            if name not in reasons and comparable and not pd.isna(value) and value != "" and key in known:
                reasons[name] = reason.format(value=value, other=known[key])
    return reasons


def _id_givers(table: pd.DataFrame) -> list[str]:
    """Who gave each image its ids: the ISIC Archive, or the image's collection."""
    archive = table["image_id"].str.fullmatch(r"ISIC_[0-9]{7}")
    return [_ARCHIVE if known else str(years) for known, years in zip(archive, table["years"], strict=True)]


def _contradicted(table: pd.DataFrame, trained: pd.DataFrame, copies: set[str]) -> set[str]:
    """The collections of which both tables have an image id that is two different photographs.

    Then two hospitals chose the same name for their collection, and none of their ids says anything.
    """
    both = table.merge(trained, on=["giver", "image_id"], suffixes=("", "_trained"))
    differ = both["source_sha256"] != both["source_sha256_trained"]
    strange = both[differ & ~both["image_id"].isin(copies) & (both["giver"] != _ARCHIVE)]
    return set(strange["giver"])


def _copies(around: Images, trained: Images) -> dict[str, str]:
    """Map the ids of copies of trained images to the reason. `data prepare` recognises copies in the same way."""
    sides = (around, trained)
    readers = [ShardReader(side.dataset) for side in sides]
    table = pd.concat([side.table for side in sides], ignore_index=True)
    which = np.repeat([False, True], [len(side.rows) for side in sides])
    rows = np.concatenate([side.rows for side in sides])

    def pixels(position: int) -> Image.Image:
        return open_image(readers[int(which[position])].jpeg(int(rows[position])).tobytes())

    pairs = near_duplicates(table["perceptual_hash"], pixels, which)
    copies = pairs[pairs["joined"]]
    ends = (table["image_id"].to_numpy()[copies[end].to_numpy(dtype=np.int64)] for end in ("first", "second"))
    return {
        str(name): f"a copy of it was, {other}; details correlate at {correlation:.3f}"
        for name, other, correlation in zip(*ends, copies["correlation"], strict=True)
    }


def _over_groups(table: pd.DataFrame, reasons: dict[str, str]) -> dict[str, str]:
    """Add a reason for every other image in the groups of the images with reasons."""
    spread = dict(reasons)
    first = table[table["image_id"].isin(reasons)].drop_duplicates("group").set_index("group")["image_id"]
    for name, group in zip(table["image_id"], table["group"], strict=True):
        if name not in reasons and group in first.index:
            spread[name] = f"it is in the group of {first[group]}: {reasons[first[group]]}"
    return spread
