"""The licence of exported weights, as far as the training data decides it."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_dist.app.export.description import USE
from melanoma_dist.data.download.catalogue import CITATIONS, official_files
from melanoma_dist.inference.trained_run import TrainedRun

_WEIGHTS = (
    "The weights come from a training on the images below. Whether a licence of images extends to weights is disputed: "
    "whoever passes the weights on decides, and answers for it. If images of another owner were prepared in the layout "
    "of a challenge, that owner's terms hold instead."
)
_PROGRAM = "The program that trained and exported them, melanoma-dist, is under the Apache License 2.0."


@dataclass(frozen=True)
class ModelLicence:
    """The licence of a run's weights."""

    short: str
    identifier: str
    """By Hugging Face's list of licences."""
    text: str


def model_licence(run: TrainedRun) -> ModelLicence:
    """The licence that the strictest of the run's training data suggests. Weights that it began with may add theirs."""
    if run.synthetic:
        text = "The weights come from a training on images that melanoma-dist drew. They are free to use."
        return ModelLicence("CC0", "cc0-1.0", _text(text))
    known = {year: official_files((year,), ("images",))[0].licence for year in CITATIONS}
    years = {name: known.get(int(name)) if name.isdigit() else None for name in run.summary.data.years}
    lines = [f"- {name}: {f'{each.name}, {each.url}' if each else 'licence unknown: ask its owner'}"
             for name, each in years.items()]  # fmt: skip
    began = run.config.model.weights
    start = {"none": "", "imagenet": "They began with published ImageNet weights of timm, which have a licence too."}
    text = _text("\n".join([_WEIGHTS, "", *lines, "", start.get(began, "They began with a file of the user's own.")]))
    if None in years.values():
        return ModelLicence("unknown", "other", text)
    if any(each.non_commercial for each in years.values() if each):
        return ModelLicence("CC BY-NC 4.0 (of the training images)", "cc-by-nc-4.0", text)
    return ModelLicence("CC0 (of the training images)", "cc0-1.0", text)


def _text(about_weights: str) -> str:
    return f"{about_weights.strip()}\n\n{_PROGRAM}\n\n{USE}\n"
