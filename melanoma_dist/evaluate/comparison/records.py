"""The content of ``comparison.json``: plain records, written by ``command.compare`` alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from melanoma_dist.artifacts.evaluation import EarlierEvaluation, EvaluatedData
from melanoma_dist.artifacts.run_record import Environment
from melanoma_dist.artifacts.summary import AUC_OF, TrainedData


@dataclass(frozen=True)
class NotDefined:
    """A number that the data does not define."""

    not_defined: str
    """The reason, as a sentence."""


@dataclass(frozen=True)
class Estimate:
    """A metric, or the difference of two, with its bootstrap interval."""

    estimate: float
    low: float
    high: float
    undefined: int
    """Resamples that do not define it."""


@dataclass(frozen=True)
class DelongAuc:
    """An AUC with DeLong's 95 % interval."""

    auc: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class DelongTest:
    """The paired DeLong test of two AUCs, with the 95 % interval of their difference."""

    difference: float
    low: float
    high: float
    standard_error: float
    p: float


@dataclass(frozen=True)
class FoldInterval:
    """A difference with its corrected resampled t interval over folds and seeds."""

    difference: float
    low: float
    high: float
    folds: int
    seeds: int


Metrics = dict[str, dict[str, Estimate | NotDefined]]
"""Each metric of each label and of the macro mean."""


@dataclass(frozen=True)
class Cost:
    """The cost of all folds of a run."""

    device: str | None
    """None where the folds differ in it."""
    device_hours: float
    folds: int
    epochs: int
    images_per_s: float
    """Mean over folds, as is ``input_wait_share``."""
    input_wait_share: float
    parameters: int | None
    """None where the weights are missing."""


@dataclass(frozen=True)
class ComparedEvaluation:
    """The evaluation whose predictions are compared."""

    number: int
    finished: str
    tta: int


@dataclass(frozen=True)
class RunMetrics:
    """The metrics of a run."""

    name: str
    metrics: Metrics
    delong: dict[str, DelongAuc | NotDefined]
    folds: dict[str, float | None] | None
    """The headline AUC of each fold; None for an ensemble."""
    constant: list[str]
    """Labels whose probability is the same for every image."""


@dataclass(frozen=True)
class RunRecord(RunMetrics):
    """A compared run."""

    folder: str
    backbone: str
    seed: int
    repeats: int
    data: str
    """Fingerprint of the data set."""
    trained: str
    """When it was finished."""
    thresholds: dict[str, float]
    evaluation: ComparedEvaluation | None
    earlier: tuple[EarlierEvaluation, ...]
    """Earlier evaluations on the same images, as the evaluation recorded them."""
    cost: Cost


@dataclass(frozen=True)
class Pair:
    """The difference of two runs, first less second."""

    first: str
    second: str
    identical: bool
    """Whether they predict the same for every image."""
    same_models: bool
    metrics: Metrics
    delong: dict[str, DelongTest | NotDefined]
    folds: FoldInterval | NotDefined
    simultaneous: Estimate | NotDefined
    """The headline AUC, at the level that holds for all pairs at once."""
    p: float | None
    p_corrected: float | None = None
    separated: bool = False
    better: str | None = None
    """The better run of a separated pair."""

    @property
    def name(self) -> str:
        """The pair in tables."""
        return f"{self.first} less {self.second}"


@dataclass(frozen=True)
class BootstrapSettings:
    """How the intervals were computed."""

    resamples: int
    seed: int
    level: float
    simultaneous_level: float


@dataclass(frozen=True)
class Comparison:
    """A whole comparison."""

    schema: int
    synthetic: bool
    holdout: str | None
    """None for out-of-fold predictions."""
    headline: str
    labels: list[str]
    images: int
    lesions: int
    positives: dict[str, int]
    data: TrainedData | EvaluatedData
    runs: list[RunRecord]
    pairs: list[Pair]
    bootstrap: BootstrapSettings
    differences: dict[str, list[object]]
    """Fields of configuration, code and machine that are not the same in all runs, with each run's value."""
    environment: Environment
    finished: str
    conclusions: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    """What the conclusions do not show."""
    groups: str = "lesions"
    """The word for what the bootstrap resamples, and ``lesions`` counts: lesions or patients."""

    @property
    def label(self) -> str:
        """The headline label."""
        return self.headline.removeprefix(AUC_OF)
