"""Compare what exported files answer with what `predict` answers, from the bytes of image files on.

The images are those of the run's gallery, and drawn ones of sizes that the gallery lacks: larger than the data set's,
smaller than the models' input, several of one size for a batch, and a long one.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from melanoma_dist.artifacts.gallery import GALLERY, read_gallery
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.inference.ensemble import EnsemblePredictions
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.storage.images import MAX_BYTES, open_image
from melanoma_dist.storage.untrusted import read_bytes

LARGEST_DIFFERENCE = 1e-3
"""Of a probability; a file that differs more is not kept."""
Floats = npt.NDArray[np.float32]
Answers = tuple[Floats, Floats, npt.NDArray[np.bool_]]
"""Of b images: probability [b, L], that of each fold [b, k, L], and the calls [b, L]."""
Answer = Callable[[npt.NDArray[np.uint8]], Answers]
"""What a file answers to RGB bytes [b, H, W, 3]."""
_DRAWN = ((1300, 900), (80, 60), (80, 60), (80, 60), (700, 200))  # width and height in pixels


@dataclass(frozen=True)
class ParityImage:
    """An image file that compares an export with `predict`."""

    name: str
    data: bytes
    drawn: bool
    """Whether this program drew it: then it belongs to no data set."""


@dataclass(frozen=True)
class Parity:
    """How far a file's answers are from those of `predict`."""

    name: str
    """Of the file."""
    images: int
    difference: float
    """The largest of a probability."""
    image: str
    """Where it is."""
    calls: int
    """Calls that differ: probabilities so near to a threshold that rounding decides."""


def parity_images(run: TrainedRun) -> list[ParityImage]:
    """The images of the run's gallery that are there, and drawn ones."""
    gallery = read_gallery(run.folder.path)
    names = [Path(image.picture).name for kind in gallery.kinds for image in kind.errors] if gallery else []
    files = [run.folder.path / GALLERY / name for name in dict.fromkeys(names)]
    pictures = [ParityImage(file.name, read_bytes(file, MAX_BYTES), False) for file in files if file.is_file()]
    return pictures + [_drawn(number, size) for number, size in enumerate(_DRAWN)]


def _drawn(number: int, size: tuple[int, int]) -> ParityImage:
    rng = np.random.default_rng([2026, number])
    picture = Image.fromarray(photograph(rng, draw_lesion(rng, "MEL" if number % 2 else "NV")))
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer := io.BytesIO(), "JPEG", quality=90)
    return ParityImage(f"drawn-{number}.jpg", buffer.getvalue(), True)


def compare(
    name: str, answer: Answer, images: Sequence[ParityImage], expected: EnsemblePredictions, size: int, fold: int | None
) -> Parity:
    """Compare a file's answers with the ``expected`` ones, of the ensemble or of one ``fold``.

    ``size``: pixels to which the data set reduced the shorter side of images.
    """
    differences, calls = np.empty(len(images), dtype=np.float32), 0
    for rows, pixels in _batches(images, size):
        target, answers = _expected(expected, rows, fold), answer(pixels)
        differences[rows] = _differences(answers, target)
        calls += int((answers[2] != target[2]).sum())
    return _parity(name, images, differences, calls)


def compare_predictions(
    name: str, answers: EnsemblePredictions, images: Sequence[ParityImage], expected: EnsemblePredictions
) -> Parity:
    """Compare the predictions of an ensemble that was loaded from an export with the ``expected`` ones."""
    rows = list(range(len(images)))
    target, own = _expected(expected, rows, None), _expected(answers, rows, None)
    return _parity(name, images, _differences(own, target), int((own[2] != target[2]).sum()))


def _differences(answers: Answers, target: Answers) -> Floats:
    """The largest difference of a probability of each image, [b]."""
    ensemble, folds = (np.abs(own - other) for own, other in zip(answers[:2], target[:2], strict=True))
    return np.asarray(np.maximum(ensemble.max(axis=1), folds.max(axis=(1, 2))))


def _parity(name: str, images: Sequence[ParityImage], differences: Floats, calls: int) -> Parity:
    worst = int(np.argmax(differences))  # NaN counts as the largest
    return Parity(name, len(images), float(differences[worst]), images[worst].name, calls)


def _batches(images: Sequence[ParityImage], size: int) -> Iterator[tuple[list[int], npt.NDArray[np.uint8]]]:
    """Batches of images of one size, as the preparation leaves them: their positions, and pixels [b, H, W, 3]."""
    prepared = Photographs.prepare([image.data for image in images], size)
    by_shape: dict[tuple[int, ...], list[tuple[int, npt.NDArray[np.uint8]]]] = {}
    for at, jpeg in enumerate(prepared.jpegs):
        with open_image(jpeg) as image:
            pixels = np.asarray(image.convert("RGB"))
        by_shape.setdefault(pixels.shape, []).append((at, pixels))
    for group in by_shape.values():
        yield [at for at, _ in group], np.stack([pixels for _, pixels in group])


def _expected(predictions: EnsemblePredictions, rows: list[int], fold: int | None) -> Answers:
    if fold is None:
        folds = predictions.calibrated[:, rows]
        return predictions.probability[rows], folds.transpose(1, 0, 2), predictions.positive[rows]
    probability = predictions.calibrated[fold, rows]
    thresholds = np.asarray(predictions.thresholds, dtype=np.float32)
    return probability, probability[:, None], probability >= thresholds


def rounding_of_predict(
    graph: nn.Module, parity: Parity, images: Sequence[ParityImage], expected: EnsemblePredictions, size: int,
    fold: int | None,
) -> float:  # fmt: skip
    """How far `predict` itself is from exact arithmetic, the ``graph`` in float64, for the image of a parity.

    The largest difference of a probability. A network that amplifies rounding has no reproducible answers.
    """
    at = next(at for at, image in enumerate(images) if image.name == parity.image)
    [(_, pixels)] = _batches([images[at]], size)
    with torch.inference_mode():
        outputs = copy.deepcopy(graph).double()(torch.from_numpy(pixels))
    probability, folds, calls = (output.numpy() for output in outputs)
    return float(_differences((probability, folds, calls), _expected(expected, [at], fold))[0])


def require_parity(parity: Parity, rounding: Callable[[], float] = lambda: 0.0) -> None:
    """Raise MelanomaDistError unless a file answers as `predict` does. ``rounding``: see `rounding_of_predict`."""
    if parity.difference <= LARGEST_DIFFERENCE:  # NaN is not
        return
    found = (
        f"{parity.name}: a probability of {parity.image} differs by {parity.difference:.2g} from that of `predict`, "
        f"more than {LARGEST_DIFFERENCE:g}. No file was kept."
    )
    if (own := rounding()) > LARGEST_DIFFERENCE / 2:
        raise MelanomaDistError(
            f"{found} The models amplify rounding, and no file can be nearer: `predict` itself differs by {own:.2g} "
            "from exact arithmetic (float64) there. Models with random or hardly trained weights do so. Train further."
        )
    raise MelanomaDistError(
        f"{found} Try another --format, and please report the backbone and the versions of torch and the export "
        "packages."
    )
