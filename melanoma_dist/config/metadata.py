"""What a model can be told of a patient beside the image: fields by name, and how they join the image's features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from melanoma_dist.config.words import words
from melanoma_dist.errors import ConfigError, nearest

Fusion = Literal["concat", "metablock"]
FIELDS = ("age", "sex", "site")
"""All fields, in the order in which models take them: columns of the manifest."""
NO_METADATA = "none"

FieldNames = Annotated[str, words("{none,age,sex,site} ...")]
"""A list of fields. It is typed as words, ``--metadata age sex``, and saved as one, ``age,sex``."""


def field_names(text: str) -> tuple[str, ...]:
    """The fields in a list with commas, in the order of ``FIELDS``. Raises ConfigError for other names."""
    names = [name.strip() for name in text.split(",")]
    if names in ([NO_METADATA], [""]):
        return ()
    for name in names:
        if name not in FIELDS:
            near = nearest(name, FIELDS)
            rule = f"{name!r} is none of {', '.join(FIELDS)}"
            remedy = f"Did you mean {near}?" if near else "Example: --metadata age sex site."
            raise ConfigError.of("metadata", text, rule, remedy)
    return _in_order(names)


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    chosen = set(names)
    return tuple(name for name in FIELDS if name in chosen)
