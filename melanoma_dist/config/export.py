"""The configuration of `export`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from melanoma_dist.config.places import check_writable, exists
from melanoma_dist.config.rules import at_least, expand_home, optional_between
from melanoma_dist.config.run import MAX_ORIENTATIONS
from melanoma_dist.errors import ConfigError

Format = Literal["onnx", "torch", "hub"]
_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
"""What a format needs beyond the packages that every installation has."""


@dataclass(frozen=True)
class ExportConfig:
    """Export a finished run: one file per fold and one of the ensemble, with preprocessing and calibration inside.

    The files run without this program. Their probabilities are compared with those of `predict` before they are kept.
    """

    run: Path
    """Folder of a finished run."""
    format: Annotated[Format, arg(aliases=("-f",))] = "onnx"
    """onnx (for ONNX Runtime and others), torch (programs of torch.export, .pt2) or hub (a folder for Hugging Face:
    safetensors, config.json, README.md)."""
    out: Path | None = None
    """New folder for the files. Default: RUN/export/FORMAT."""
    tta: int | None = None
    """Test-time augmentation: orientations of each image to average, 1 (none, the fastest) to 8. Default: as in the
    run, whose calibration and operating points hold for it."""
    decode_threads: Annotated[int | None, arg(aliases=("-j",))] = None
    """Threads that decode images and compute. Default: the number of CPU cores."""

    def __post_init__(self) -> None:
        expand_home(self, "run", "out")
        optional_between(self, "tta", 1, MAX_ORIENTATIONS)
        at_least(self, 1, "decode_threads")

    @property
    def folder(self) -> Path:
        """The new folder."""
        return self.out or self.run / "export" / self.format


def check_format(chosen: Format) -> None:
    """Raise ConfigError unless the packages that a format needs are installed."""
    if missing := [name for name in _PACKAGES.get(chosen, ()) if find_spec(name) is None]:
        verb = "is" if len(missing) == 1 else "are"
        rule = f"needs {' and '.join(missing)}, which {verb} not installed"
        raise ConfigError.of("format", chosen, rule, "Type `pip install 'melanoma-dist[export]'`.")


def check_new_folder(folder: Path) -> None:
    """Raise ConfigError for a folder that exists, or that cannot be created."""
    if exists(folder) or folder.is_symlink():
        raise ConfigError.of("out", folder, "exists already", "Delete it, or name a new folder with --out.")
    check_writable("out", folder.parent)
