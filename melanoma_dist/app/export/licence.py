"""The licence of exported weights, as far as the training data decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melanoma_dist.app.export.description import USE
from melanoma_dist.data.download.catalogue import CITATIONS, Licence, official_files
from melanoma_dist.inference.trained_run import TrainedRun

_WEIGHTS = (
    "The weights come from a training on the images below. Whether a licence of images extends to weights is disputed: "
    "whoever passes the weights on decides, and answers for it. If images of another owner were prepared in the layout "
    "of a challenge, that owner's terms hold instead."
)
_UNKNOWN = "unknown"
_STARTS = {"none": "", "imagenet": "They began with published ImageNet weights of timm or Keras, which have a licence."}
_END = f"The program that trained and exported them, melanoma-dist, is under the Apache License 2.0.\n\n{USE}\n"


@dataclass(frozen=True)
class ModelLicence:
    """The licence of a run's weights."""

    short: str
    identifier: str
    """By Hugging Face's list of licences."""
    text: str


def model_licence(run: TrainedRun) -> ModelLicence:
    """The licence that the strictest of the training images suggests. Weights that a run began with may add theirs."""
    began = _STARTS.get(run.config.model.weights, "They began with weights from a file, which may have a licence too.")
    names, terms = run.summary.data.years, run.summary.data.terms
    if run.synthetic:
        names, lines, licences = (), ["- images that melanoma-dist drew: free to use"], []
    else:
        known = {str(year): official_files((year,), ("images",))[0].licence for year in CITATIONS}
        licences = [known.get(name) for name in names]
        lines = [
            f"- {name}: {f'{each.name}, {each.url}' if each else terms.get(name, 'licence unknown: ask its owner')}"
            for name, each in zip(names, licences, strict=True)
        ]
    short, identifier = _strictest(licences, bool(began))
    if short == _UNKNOWN and all(licence or name in terms for name, licence in zip(names, licences, strict=True)):
        short = "as the owners of the training images say"
    return ModelLicence(short, identifier, "\n".join([_WEIGHTS, "", *lines, "", *([began, ""] if began else []), _END]))


def _strictest(licences: Sequence[Licence | None], began: bool) -> tuple[str, str]:
    """The licence for people, and by Hugging Face's name, of images and weights to begin with."""
    if None in licences:
        return _UNKNOWN, "other"
    if any(each.non_commercial for each in licences if each):
        return "CC BY-NC 4.0 (of training images)", "cc-by-nc-4.0"
    return ("that of the weights it began with", "other") if began else ("CC0 (of training images)", "cc0-1.0")
