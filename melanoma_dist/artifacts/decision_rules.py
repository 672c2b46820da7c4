"""``decision_rules.json``: how a run calibrates probabilities, and from which threshold it calls a label positive.

The run fits its rules once, on its out-of-fold predictions. An evaluation on a holdout applies them unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.records import read_record, write_record
from melanoma_dist.artifacts.summary import REFINALIZE
from melanoma_dist.config.places import DECISION_RULES
from melanoma_dist.metrics.calibration import Calibrator
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import OperatingPoint

Array = npt.NDArray[np.float32]
SCHEMA = 2
USED = "logistic"
"""The calibration in use."""
WHY_USED = (
    "unlike isotonic regression it keeps the ranks, and so the AUC, of all probabilities that one calibrator maps; "
    "unlike a temperature it undoes class weights"
)


@dataclass(frozen=True)
class LabelRules:
    """The rules of one label."""

    calibrator: Calibrator
    points: tuple[OperatingPoint, ...]
    """Their thresholds are calibrated probabilities."""


@dataclass(frozen=True)
class DecisionRules:
    """The rules of a run."""

    labels: dict[str, LabelRules | Undefined]
    calibration: str = USED
    schema: int = field(default=SCHEMA)

    def calibrate(self, table: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
        """Calibrate a table of raw probabilities, float32. Labels without rules stay as they are."""
        calibrated = table.copy()
        for label in labels:
            calibrated[label] = self._calibrate(label, table[label].to_numpy())
        return calibrated

    def calibrate_array(self, probability: Array, labels: tuple[str, ...]) -> Array:
        """Calibrate raw probabilities [n, L]. Labels without rules stay as they are."""
        columns = [self._calibrate(label, np.ascontiguousarray(probability[:, at])) for at, label in enumerate(labels)]
        return np.stack(columns, axis=1)

    def _calibrate(self, label: str, probability: Array) -> Array:
        rules = self.labels.get(label)
        return rules.calibrator.apply(probability).astype(np.float32) if isinstance(rules, LabelRules) else probability

    def thresholds(self, labels: tuple[str, ...], default: float) -> tuple[float, ...]:
        """The threshold of each label's Youden point, or ``default`` for a label without rules."""
        return tuple(
            next((point.threshold for point in self.points(label) if point.rule.kind == "youden"), default)
            for label in labels
        )

    def points(self, label: str) -> tuple[OperatingPoint, ...]:
        """The operating points of a label; none for a label without rules."""
        rules = self.labels.get(label)
        return rules.points if isinstance(rules, LabelRules) else ()


def write_decision_rules(folder: Path, rules: DecisionRules) -> None:
    """Write ``decision_rules.json`` into the folder of a run."""
    write_record(folder / DECISION_RULES, rules)


def read_decision_rules(folder: Path) -> DecisionRules:
    """Read ``decision_rules.json``. Raises DataError for a file that is missing, corrupt, or of another version."""
    return read_record(folder / DECISION_RULES, DecisionRules, REFINALIZE, (SCHEMA,))
