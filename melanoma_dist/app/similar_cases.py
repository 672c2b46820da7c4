"""The known cases that look most like a new image to the models of a run, with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_dist.data.download.catalogue import official_files
from melanoma_dist.data.labels import known_labels
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.ensemble_predictions import EnsemblePredictions

_SHOWN = 3
_CHALLENGES = ("2017", "2018", "2019")


@dataclass(frozen=True)
class SimilarCase:
    """An image of the run's own data set."""

    image_id: str
    similarity: float
    """Cosine similarity of the features, the mean over the folds: 1 is equal."""
    diagnosis: str
    """Its labels; empty where the data set cannot be read."""
    source: str
    """Its challenges, such as ISIC 2018 and 2019; ``synthetic`` for a drawn image."""
    licence: str
    """Of the picture; empty where it is not known."""

    @property
    def sentence(self) -> str:
        """The case in one line."""
        about = ", ".join(part for part in (self.diagnosis, self.source, self.licence) if part)
        return f"{self.image_id} ({f'{about}; ' if about else ''}similarity {self.similarity:.3f})"


def similar_cases(
    ensemble: Ensemble, own: Dataset | None, predictions: EnsemblePredictions, count: int = _SHOWN
) -> list[list[SimilarCase]]:
    """The most similar cases of each image, the most similar first. None for a run without features.

    ``own`` is the run's data set, ``predictions`` have features.
    """
    if ensemble.run_features is None:
        return [[] for _ in predictions.image_ids]
    nearest = ensemble.run_features.nearest(predictions.features, count)
    return [
        [
            describe_case(own, str(image_id), float(similarity))
            for image_id, similarity in zip(ids, similarities, strict=True)
        ]
        for ids, similarities in zip(nearest.image_ids, nearest.similarity, strict=True)
    ]


def describe_case(own: Dataset | None, image_id: str, similarity: float) -> SimilarCase:
    """A case with what the run's data set knows of it."""
    if own is None:
        return SimilarCase(image_id, similarity, "", "", "")
    row = own.manifest[own.manifest["image_id"] == image_id].iloc[0]
    if own.synthetic:
        return SimilarCase(image_id, similarity, known_labels(row), "synthetic", "")
    collections = row["years"].split("+")
    years = [int(name) for name in collections if name in _CHALLENGES]
    others = [name for name in collections if name not in _CHALLENGES]
    source = " and ".join([*([_source(years)] if years else []), *others])
    terms = [own.terms[name] for name in others if name in own.terms]
    licence = ", ".join([*([_licence(years)] if years else []), *terms])
    return SimilarCase(image_id, similarity, known_labels(row), source, licence)


def _source(years: list[int]) -> str:
    return "ISIC " + " and ".join(map(str, years))


def _licence(years: list[int]) -> str:
    """The most liberal licence under which one of the challenges published the image."""
    licences = [file.licence for file in official_files(years, ["images"])]
    return min(licences, key=lambda licence: licence.non_commercial).short
