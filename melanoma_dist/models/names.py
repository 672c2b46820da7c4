"""The names of backbones, read from timm's source files: a misspelt one is told without importing timm and PyTorch.

timm registers a model by a decorated function, and its weights by keys ``model.tag``. Reading both from the sources
takes a fraction of a second; importing timm takes many. A list kept in a cache would be missing at the first command,
and one in this package would be of another version of timm. A test compares the names with timm's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from melanoma_dist.config.weights import KERAS_BACKBONES, find_weights
from melanoma_dist.errors import ConfigError, nearest

LITERATURE = {
    "resnet152v2": "resnet152v2",
    "inceptionv3": "inception_v3",
    "densenet201": "densenet201",
    "inceptionresnetv2": "inception_resnet_v2",
}
_ALIASES = LITERATURE | {name: name for name in KERAS_BACKBONES}
UNTRAINED = "untrained"
_MODEL = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)
_TAG = re.compile(r"^ {4}['\"](\w+)(?:\.([^'\"*]*))?\*?['\"]: ?(?:_\w*cfg\w*|dict|\{)", re.MULTILINE)
_DEPRECATED = re.compile(r"^register_model_deprecations\(.*?\}\)", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"['\"](\w+)['\"]\s*:")


def name_in_timm(backbone: str) -> tuple[str, str]:
    """Split a backbone's name into timm's architecture and the tag of the weights, which may be empty."""
    architecture, _, tag = backbone.partition(".")
    return _ALIASES.get(architecture.lower(), architecture), tag


@cache
def source_names() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """The architectures in timm's source files, and the tags of each that has any. Empty if there are no sources."""
    spec = find_spec("timm")  # imports nothing of it
    folders = spec.submodule_search_locations if spec is not None else None
    names: set[str] = set()
    tags: dict[str, set[str]] = {}
    for path in sorted(Path(folders[0], "models").glob("*.py")) if folders else ():
        text = path.read_text(encoding="utf-8")
        names.update(_MODEL.findall(text))
        for old in _DEPRECATED.findall(text):
            names.update(_QUOTED.findall(old))
        for name, tag in _TAG.findall(text):
            tags.setdefault(name, set()).add(tag)
    return frozenset(names), {name: frozenset(each) for name, each in tags.items()}


def check_name(backbone: str, weights: str) -> None:
    """Raise ConfigError for a backbone that timm does not know or has without weights, and for a file that is missing.

    Says nothing where the sources do not tell: `melanoma_dist.models.backbones` asks timm itself later.
    """
    names, tags = source_names()
    architecture, _ = name_in_timm(backbone)
    if names and architecture not in {*names, *KERAS_BACKBONES}:
        raise unknown_backbone(backbone, names)
    if weights == "imagenet" and tags.get(architecture, frozenset()) == frozenset({UNTRAINED}):
        raise without_weights(backbone, architecture, [name for name, own in tags.items() if own - {"", UNTRAINED}])
    if weights not in ("imagenet", "none"):
        find_weights(weights, backbone)


def unknown_backbone(backbone: str, names: Iterable[str]) -> ConfigError:
    """The error for a name that timm does not know, with similar ones."""
    near = nearest(backbone, [*_ALIASES, *names])
    remedy = f"Similar names: {near}." if near else "Type a name that timm.list_models() has."
    return ConfigError.of("backbone", backbone, "timm knows no such model", remedy)


def without_weights(backbone: str, architecture: str, trained: Sequence[str]) -> ConfigError:
    """The error for a backbone without published weights, with the most similar of the ``trained`` architectures."""
    near = ", ".join(_nearest(architecture, trained))
    return ConfigError.of(
        "weights", "imagenet", f"no ImageNet weights are published for {backbone} ({architecture} in timm)",
        f"Similar ones with weights: {near}. Or type --weights FILE, or --weights none: a random start.",
    )  # fmt: skip


def _nearest(name: str, trained: Sequence[str], count: int = 4) -> list[str]:
    """Choose similar architectures: the same family first, then by difference in depth."""
    family, depth = _family_and_depth(name)

    def distance(other: str) -> tuple[bool, int, int, str]:
        other_family, other_depth = _family_and_depth(other)
        return other_family != family, abs(other_depth - depth), len(other), other

    return sorted(set(trained), key=distance)[:count]


def _family_and_depth(name: str) -> tuple[str, int]:
    family, _, rest = name.partition("_")
    digits = re.search(r"\d+", rest or family)
    return family, int(digits.group()) if digits else 0
