"""What a fold's model sees in the images of its run: ``fold-<i>/features.safetensors``.

Shapes: n images, C features of the backbone, d dimensions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from melanoma_dist.artifacts.integrity import read_hash, write_hash
from melanoma_dist.errors import DataError
from melanoma_dist.metrics import novelty
from melanoma_dist.storage import atomic

FEATURES = "features.safetensors"
_HASH = "features.sha256"
_TENSORS = ("basis", "images", "limit")
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureSpace:
    """The features of one model."""

    basis: Array
    """[C, d] see `melanoma_dist.metrics.novelty`."""
    images: Array
    """[n, d] coordinates of the run's images, in the order of its folds; zeros for one that cannot be decoded."""
    limit: float
    """Distance from the training images from which an image is unlike them."""

    @classmethod
    def fit(cls, vectors: Array, training: npt.NDArray[np.bool_]) -> FeatureSpace:
        """Fit to unit vectors [n, C] of all images. ``training`` [n] marks those that the model was trained on."""
        basis = novelty.principal_basis(vectors[training])
        images = vectors @ basis
        return cls(basis, images, novelty.limit(novelty.distance(images[~training], images[training])))


def write_features(folder: Path, space: FeatureSpace, fingerprint: str) -> None:
    """Write the features of a fold into its folder. ``fingerprint``: of the data set."""
    tensors = {
        "basis": space.basis,
        "images": space.images.astype(np.float16),
        "limit": np.array([space.limit], np.float64),
    }
    encoded = save(tensors, {"data": fingerprint})  # whose own writing of files gives nobody else access
    atomic.write_file(folder / FEATURES, lambda aside: aside.write_bytes(encoded))
    write_hash(folder / _HASH, Path(FEATURES), hashlib.sha256(encoded).hexdigest())


def read_features(folder: Path, fingerprint: str) -> FeatureSpace | None:
    """Read the features of a fold; None if it has none.

    Raises DataError for those of other data, and for others than the training wrote. Earlier versions kept no hash.
    """
    path, record = folder / FEATURES, folder / _HASH
    if not path.is_file():
        return None
    try:
        if record.exists() and (expected := read_hash(record)) != (digest := atomic.sha256(path.resolve())):
            raise ValueError(f"their sha256 is {digest[:12]}..., must be {expected[:12]}... as in {record.name}")
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("data") != fingerprint:
                raise ValueError("they are of other data")
            basis, images, limit = (
                np.asarray(file.get_tensor(name), np.float32) for name in ("basis", "images", "limit")
            )
        if basis.ndim != 2 or images.ndim != 2 or basis.shape[1] != images.shape[1] or limit.shape != (1,):
            raise ValueError("their shapes do not fit each other")
        if not all(np.isfinite(array).all() for array in (basis, images, limit)):
            raise ValueError("they hold NaN or infinity")
        if not limit[0] > 0:
            raise ValueError(f"their limit is {limit[0]:g}, must be above 0")
    except (OSError, SafetensorError, ValueError) as error:
        remedy = f"Copy the file again, or delete it and {_HASH} to predict without them."
        raise DataError(f"{path}: the features cannot be used ({error}). {remedy}") from error
    return FeatureSpace(basis, images, float(limit[0]))
