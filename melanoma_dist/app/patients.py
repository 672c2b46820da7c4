"""What a user says of a patient beside an image: in columns of a table, or in the fields of a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from melanoma_dist import console
from melanoma_dist.app.inputs import InputImage
from melanoma_dist.data.metadata import parse_code
from melanoma_dist.errors import ConfigError, DataError

UNKNOWN = "unknown"
About = Mapping[str, str]


def read_patients(images: Sequence[InputImage], fields: tuple[str, ...]) -> list[About]:
    """Read the columns ``age``, ``sex`` and ``site`` of the user's tables that a run takes.

    Raises DataError for a value that a field cannot have. Says of how many images each field is known.
    """
    patients = [_of_image(image, fields) for image in images]
    if fields:
        known = {field: sum(not _is_unknown(field, each) for each in patients) for field in fields}
        counts = ", ".join(f"{field} of {count}" for field, count in known.items())
        console.info(f"metadata: known of {len(images)} images: {counts}. What is unknown is predicted as such.")
    return patients


def _of_image(image: InputImage, fields: tuple[str, ...]) -> About:
    about = {name.lower(): value for name, value in image.values.items() if name.lower() in fields}
    for field, value in about.items():
        try:
            parse_code(field, value)
        except ConfigError as error:
            raise DataError(f"{image.path}: in its table, {str(error).removeprefix('--')}") from error
    return about


def in_words(about: About, fields: tuple[str, ...]) -> str:
    """What models were told: ``age 55, sex female, site unknown``."""
    return ", ".join(f"{field} {UNKNOWN if _is_unknown(field, about) else about[field]}" for field in fields)


def _is_unknown(field: str, about: About) -> bool:
    return isnan(parse_code(field, about.get(field, "")))
