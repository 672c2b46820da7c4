from __future__ import annotations

import inspect
import pickle
import re

import pytest

from melanoma_dist import errors
from melanoma_dist.errors import (
    ConfigError,
    CorruptImages,
    MelanomaDistError,
    OutOfMemory,
    nearest,
)

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, MelanomaDistError)]


def test_the_docstring_shows_the_tree_as_it_is() -> None:
    branch, parents = [""], {}
    for bars, name in re.findall(r"^    ([ │├└─]*)(\w+)", errors.__doc__ or "", flags=re.MULTILINE):
        depth = len(bars) // 4 + 1
        branch = [*branch[:depth], name]
        parents[name] = branch[-2]
    assert parents == {each.__name__: each.__base__.__name__ for each in CLASSES} | {"MelanomaDistError": ""}


def test_exit_codes_and_kinds() -> None:
    assert {each.__name__ for each in CLASSES if each.exit_code == 2} == {
        *("UserError", "ConfigError", "DataError", "CorruptImages", "ResumeError")
    }
    assert {each.exit_code for each in CLASSES} == {1, 2}
    assert not issubclass(ConfigError, ValueError)  # the parser would show it in a box, with the name of a class


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_crosses_processes_intact(kind: type[MelanomaDistError], protocol: int) -> None:
    more = {CorruptImages: (("ISIC_0000001", "ISIC_0000002"),), OutOfMemory: (4,)}.get(kind, ())
    back = pickle.loads(pickle.dumps(kind("what happened: [3] of {4}", *more), protocol))  # noqa: S301  # what the test pickled
    assert type(back) is kind
    assert not isinstance(back, CorruptImages) or back.image_ids == more[0]
    assert not isinstance(back, OutOfMemory) or back.micro_batches == more[0]
    assert str(back) == "what happened: [3] of {4}"
    assert back.exit_code == kind.exit_code


def test_a_built_message_crosses_processes_intact() -> None:
    error = ConfigError.of("batch_size", 1, "must be 2 to 65536", "Use 2.")
    assert str(error) == "--batch-size 1: must be 2 to 65536. Use 2."
    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # what the test pickled
    assert (type(back), str(back)) == (ConfigError, str(error))


def test_near_names_come_first() -> None:
    assert nearest("resnet50x", ["resnet50", "vgg", "resnet18"]).startswith("resnet50")
    assert nearest("zzzz", ["resnet50", "vgg"]) == ""
