"""Lists that are typed as words, ``--metadata age sex``, and saved as one text with commas, ``age,sex``."""

from __future__ import annotations

from tyro.constructors import PrimitiveConstructorSpec


def words(metavar: str) -> PrimitiveConstructorSpec[str]:
    """How such a field is parsed and shown. ``metavar``: what the help says of the words."""
    return PrimitiveConstructorSpec[str](
        nargs="*",
        metavar=metavar,
        instance_from_str=",".join,
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: value.split(","),
    )
