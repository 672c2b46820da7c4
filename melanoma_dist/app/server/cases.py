"""The run's own images, to show beside a new one."""

from __future__ import annotations

from melanoma_dist.app.similar_cases import describe_case
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.inference.trained_run import TrainedRun


class Cases:
    """The images that the folds were trained on."""

    def __init__(self, run: TrainedRun, dataset: Dataset | None) -> None:
        """``dataset``: the run's own; None if it cannot be read. Then cases have neither diagnoses nor pictures."""
        self._dataset = dataset
        trained = set() if dataset is None else set(read_folds(run.folder.folds)["image_id"])
        ids = () if dataset is None else dataset.manifest["image_id"]
        self._rows = {image_id: row for row, image_id in enumerate(ids) if image_id in trained}

    def describe(self, image_id: str, similarity: float) -> dict[str, object]:
        """What an answer says about a case."""
        picture = f"/v1/cases/{image_id}" if image_id in self._rows else None
        return {**vars(describe_case(self._dataset, image_id, similarity)), "picture": picture}

    def picture(self, image_id: str) -> bytes | None:
        """The JPEG of a case; None for an image that is none, or without the data set."""
        if self._dataset is None or image_id not in self._rows:
            return None
        return ShardReader(self._dataset).jpeg(self._rows[image_id]).tobytes()
