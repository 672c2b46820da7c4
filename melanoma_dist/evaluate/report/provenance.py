"""State where the images of a run come from: the ISIC challenges, other collections, or the program."""

from __future__ import annotations

from collections.abc import Iterator

from melanoma_dist.artifacts.summary import RunSummary
from melanoma_dist.data.download.catalogue import CITATIONS

AUTHORS = "to be filled in by the authors"
KEPT_OUT = "holdouts, images that share a known lesion or a copy with them, and images without a known label"

_CHALLENGES = frozenset(map(str, CITATIONS))


def sources(summary: RunSummary) -> str:
    """The challenges, and other collections with their terms."""
    if summary.synthetic:
        return "synthetic images drawn by the program"
    challenges = [name for name in summary.data.years if name in _CHALLENGES]
    others = [
        f"{name} ({summary.data.terms.get(name, 'licence not stated')})"
        for name in summary.data.years
        if name not in _CHALLENGES
    ]
    return "; ".join([*([f"the ISIC challenges of {', '.join(challenges)}"] if challenges else []), *others])


def ground_truth(summary: RunSummary) -> str:
    """Who said what the images show, as far as the program knows."""
    names = ", ".join(summary.data.years)
    if summary.synthetic:
        return "the program, which drew the images"
    if _are_challenges(summary):
        return f"the challenges' published ground truth ({names})"
    return f"the tables of {names}; who made them, and how: {AUTHORS}"


def deidentified(summary: RunSummary) -> str:
    """What the program and the challenges removed."""
    stored = "images are stored without the metadata of their files"
    if summary.synthetic:
        return stored
    if _are_challenges(summary):
        return f"{stored}; the challenges de-identified them before publication"
    return f"{stored}; what was removed from them before: {AUTHORS}"


def limits(summary: RunSummary) -> Iterator[str]:
    """What the choice of the images leaves unknown."""
    if summary.synthetic:
        return
    if any(name in _CHALLENGES for name in summary.data.years):
        yield (
            "The images of the ISIC challenges come from a few specialised clinics, which chose what to photograph. "
            "Their tables have no skin types, and few images show dark skin: how the model does there is unknown."
        )
    if others := [name for name in summary.data.years if name not in _CHALLENGES]:
        yield (
            f"Those who took the images of {', '.join(others)} chose what to photograph. The program knows no skin "
            "types of them: how the model does on skin that they do not show is unknown."
        )


def _are_challenges(summary: RunSummary) -> bool:
    return _CHALLENGES.issuperset(summary.data.years)
