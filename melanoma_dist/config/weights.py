"""The files of ``--weights``, and the configuration of `weights fetch`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from melanoma_dist.config.rules import expand_home
from melanoma_dist.errors import ConfigError

KERAS_BACKBONES = ("resnet50v2", "resnet101v2", "resnet152v2")
"""Backbones that are Keras's architectures and not timm's: `melanoma_dist.models.keras_resnet`."""
GEOMETRY = "model.geometry"
"""The entry of a run's identity that runs of earlier versions lack: there, the same name meant a model of timm."""
CONFIG = "config.json"
_FILES = ("model.safetensors", "pytorch_model.bin")
_LONGEST_CONFIG = 2**20  # bytes


@dataclass(frozen=True)
class FetchConfig:
    """Download published weights into a folder, for machines without a network.

    `--weights DIR` takes that folder for each of its backbones.
    """

    backbones: Positional[tuple[str, ...]]
    """Backbones, as in `--backbone`."""
    out: Path = Path("weights")
    """Folder for one folder per backbone: config.json and model.safetensors."""

    def __post_init__(self) -> None:
        expand_home(self, "out")
        if not self.backbones:
            raise ConfigError("weights fetch: names no backbone. Type one, such as inceptionresnetv2.")


def is_keras(backbone: str) -> bool:
    """Whether a backbone is one of `KERAS_BACKBONES`."""
    return backbone.lower().partition(".")[0] in KERAS_BACKBONES


def find_weights(weights: str, backbone: str) -> Path:
    """The file that ``--weights`` names: itself, or one in a folder.

    The folder is a copy of a repository of Hugging Face, its folder in a cache, or one of `weights fetch`. Raises
    ConfigError if there is no such file.
    """
    path = Path(weights)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError.of("weights", weights, "is neither imagenet, none nor a file or folder that exists")
    folder = _snapshot(path / backbone if (path / backbone).is_dir() else path)
    for file in _FILES:
        if (folder / file).is_file():
            return folder / file
    rule = f"has neither {_FILES[0]} nor {_FILES[1]}"
    raise ConfigError.of(
        "weights", weights, rule, "Name a folder of `weights fetch`, or a copy of a repository of Hugging Face."
    )


def _snapshot(folder: Path) -> Path:
    """The snapshot in a repository's folder of a cache: that of the branch main, or the only one. Else the folder."""
    snapshots = sorted(folder.glob("snapshots/*/"))
    main = folder / "refs" / "main"
    if main.is_file() and (current := folder / "snapshots" / main.read_text().strip()).is_dir():
        return current
    return snapshots[0] if len(snapshots) == 1 else folder


def architecture_beside(file: Path) -> str | None:
    """The architecture that the configuration beside a file of weights names, None if there is none."""
    path = file.with_name(CONFIG)
    try:
        if path.stat().st_size > _LONGEST_CONFIG:
            return None
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    architecture = config.get("architecture") if isinstance(config, dict) else None
    return architecture if isinstance(architecture, str) else None
