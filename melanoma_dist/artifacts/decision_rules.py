"""The decision rules of a run: how it calibrates probabilities, and from which threshold it calls a label positive.

Kept in the run as ``decision_rules.json``. The run fits them once, on its out-of-fold predictions. An evaluation on
unseen images applies them and chooses nothing of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.errors import DataError
from melanoma_dist.metrics.calibration import Calibrator, calibrator_of
from melanoma_dist.metrics.operating_points import point_of

Array = npt.NDArray[np.float32]
USED = "logistic"
"""The calibration in use: it keeps ranks, as isotonic does not, and undoes class weights, as a temperature cannot."""
YOUDEN = "Youden"


@dataclass(frozen=True)
class DecisionRules:
    """The calibrator and the operating points of each label, or why it has none."""

    calibrators: dict[str, Calibrator | None]
    points: dict[str, list[dict[str, Any]]]
    """Each with ``name`` and what ``OperatingPoint.to_dict`` tells; thresholds are calibrated probabilities."""
    why_not: dict[str, str]
    """For the labels that have none."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which ``of`` reads."""
        kept = {label: None if made is None else made.to_dict() for label, made in self.calibrators.items()}
        return {"calibration": USED, "calibrators": kept, "points": self.points, "why_not": self.why_not}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> DecisionRules:
        """What ``to_dict`` told. Raises DataError for anything else."""
        try:
            kept = {
                label: None if made is None else calibrator_of(made) for label, made in stored["calibrators"].items()
            }
            for point in (point for points in stored["points"].values() for point in points):
                str(point["name"]), point_of({key: value for key, value in point.items() if key != "name"})
            return cls(kept, stored["points"], stored["why_not"])
        except (KeyError, TypeError, AttributeError) as error:
            remedy = "Delete it and summary.json, and give the training command again."
            raise DataError(f"decision_rules.json cannot be read ({error!r}). {remedy}") from error

    def calibrate(self, table: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
        """A table of raw probabilities with calibrated ones, float32; those of a label without calibrator stay."""
        calibrated = table.copy()
        for label in labels:
            calibrated[label] = self._calibrated(label, table[label].to_numpy())
        return calibrated

    def calibrate_array(self, probability: Array, labels: tuple[str, ...]) -> Array:
        """Calibrated probabilities [n, L] of raw ones; those of a label without calibrator stay."""
        columns = [self._calibrated(label, np.ascontiguousarray(probability[:, at])) for at, label in enumerate(labels)]
        return np.stack(columns, axis=1)

    def _calibrated(self, label: str, probability: Array) -> Array:
        calibrator = self.calibrators.get(label)
        return probability if calibrator is None else calibrator.apply(probability).astype(np.float32)

    def thresholds(self, labels: tuple[str, ...], default: float) -> tuple[float, ...]:
        """The threshold of each label's point of Youden, or ``default`` for a label without one."""
        chosen = {label: point["threshold"] for label, points in self.points.items() for point in points
                  if point["name"] == YOUDEN}  # fmt: skip
        return tuple(chosen.get(label, default) for label in labels)

    def told_points(self) -> dict[str, Any]:
        """The points of each label, or why there are none."""
        return {
            label: {"not_chosen": self.why_not[label]} if label in self.why_not else points
            for label, points in self.points.items()
        }
