"""The run's own images, to show beside a new one: their diagnoses, where they come from, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from melanoma_dist.data.download.catalogue import licence_of_images
from melanoma_dist.data.labels import TRUE
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.inference.trained_run import TrainedRun


class Cases:
    """The images that the folds were trained on."""

    def __init__(self, run: TrainedRun, dataset: Dataset | None) -> None:
        """``dataset``: the run's own; None if it cannot be read. Then cases have no pictures."""
        self._run, self._dataset = run, dataset

    def describe(self, image_id: str, similarity: float) -> dict[str, object]:
        """What an answer says about a case."""
        years = self._years.get(image_id, ())
        licences = {licence_of_images(year) for year in years} if not self._run.synthetic else {"synthetic"}
        return {
            "image_id": image_id,
            "similarity": round(similarity, 4),
            "diagnoses": self._diagnoses.get(image_id, []),
            "collections": list(years),
            "licence": ", ".join(sorted(filter(None, licences))),
            "picture": f"/v1/cases/{image_id}" if image_id in self._rows else None,
        }

    def picture(self, image_id: str) -> bytes | None:
        """The JPEG of a case; None for an image that is none, or without the data set."""
        if self._dataset is None or image_id not in self._rows:
            return None
        return ShardReader(self._dataset).jpeg(self._rows[image_id]).tobytes()

    @cached_property
    def _diagnoses(self) -> Mapping[str, list[str]]:
        """The labels that are known to be true of each image."""
        table = self._run.predictions()
        truth = table[[label + TRUE for label in self._run.labels]].to_numpy() == 1
        return {
            image_id: [label for label, holds in zip(self._run.labels, row, strict=True) if holds]
            for image_id, row in zip(table["image_id"], truth, strict=True)
        }

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        if self._dataset is None:
            return {}
        trained = set(self._diagnoses)
        ids = self._dataset.manifest["image_id"]
        return {image_id: row for row, image_id in enumerate(ids) if image_id in trained}

    @cached_property
    def _years(self) -> Mapping[str, tuple[str, ...]]:
        if self._dataset is None:
            return {}
        manifest = self._dataset.manifest
        return dict(zip(manifest["image_id"], manifest["years"].str.split("+").map(tuple), strict=True))
