"""Compare what exported files answer with what `predict` answers, from the bytes of image files on.

The images are those of the run's gallery, and drawn ones of sizes that the gallery lacks: larger than the data set's,
smaller than the models' input, several of one size for a batch, and a long one. Models that take metadata are told of
some patients everything, of some a part, and of some nothing.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from melanoma_dist.artifacts.gallery import GALLERY, read_gallery
from melanoma_dist.config.metadata import field_names
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.inference.ensemble_predictions import EnsemblePredictions
from melanoma_dist.inference.photographs import Metadata, Photographs
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.storage.images import MAX_BYTES, open_image
from melanoma_dist.storage.untrusted import read_bytes

LARGEST_DIFFERENCE = 1e-3
"""Of a probability; a file that differs more is not kept."""
LARGEST_OF_PIXELS = 1e-2
"""Of a pixel's probability of lesion. One level of one input pixel moves those around it more than any label's; what
counts of them is where the lesion's box lies, and is compared too."""
Floats = npt.NDArray[np.float32]
Answers = tuple[npt.NDArray[Any], ...]
"""Of b images: probability [b, L], that of each fold [b, k, L], and the calls [b, L]. Of a segmenter, see its graph."""
Answer = Callable[..., Answers]
"""What a file answers to bytes [b, H, W, C], and to codes [b, F] of metadata where its models take them."""
_DRAWN = ((1300, 900), (80, 60), (80, 60), (80, 60), (700, 200))  # width and height in pixels
_PATIENTS: tuple[Metadata, ...] = (
    {"age": 71, "sex": "male", "site": "lower extremity"},
    {},
    {"age": 24, "site": "palms/soles"},
    {"sex": "female"},
)


@dataclass(frozen=True)
class ParityImage:
    """An image file that compares an export with `predict`."""

    name: str
    data: bytes
    drawn: bool
    """Whether this program drew it: then it belongs to no data set."""
    about: Metadata = field(default_factory=dict)
    """What the models are told of the patient."""
    view: npt.NDArray[np.uint8] | None = None
    """Bytes [H, W, C] that the models see of it; None: the whole image, as the preparation leaves it."""


@dataclass(frozen=True)
class Reference:
    """Images, and what `predict` answers for them."""

    images: Sequence[ParityImage]
    expected: EnsemblePredictions
    size: int
    """Pixels to which the data set reduced the shorter side of images."""
    fields: tuple[str, ...] = ()
    """Metadata that the models take."""


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


@dataclass(frozen=True)
class Rounding:
    """How far two answers for an image are from exact arithmetic: the largest difference of a probability of each."""

    predict: float
    file: float


def parity_images(run: TrainedRun) -> list[ParityImage]:
    """The images of the run's gallery that are there, and drawn ones."""
    gallery = read_gallery(run.folder.path)
    names = [Path(image.picture).name for kind in gallery.kinds for image in kind.errors] if gallery else []
    files = [run.folder.path / GALLERY / name for name in dict.fromkeys(names)]
    pictures = [ParityImage(file.name, read_bytes(file, MAX_BYTES), False) for file in files if file.is_file()]
    pictures += [_drawn(number, size) for number, size in enumerate(_DRAWN)]
    fields = field_names(run.config.model.metadata)
    return [replace(each, about=_known(about, fields)) for each, about in zip(pictures, cycle(_PATIENTS), strict=False)]


def _known(about: Metadata, fields: tuple[str, ...]) -> Metadata:
    return {name: value for name, value in about.items() if name in fields}


def _drawn(number: int, size: tuple[int, int]) -> ParityImage:
    rng = np.random.default_rng([2026, number])
    picture = Image.fromarray(photograph(rng, draw_lesion(rng, "MEL" if number % 2 else "NV")))
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer := io.BytesIO(), "JPEG", quality=90)
    return ParityImage(f"drawn-{number}.jpg", buffer.getvalue(), True)


def compare(name: str, answer: Answer, reference: Reference, fold: int | None) -> Parity:
    """Compare a file's answers with those of `predict`, of the ensemble or of one ``fold``."""
    differences, calls = np.empty(len(reference.images), dtype=np.float32), 0
    for rows, inputs in _batches(reference.images, reference):
        target, answers = _expected(reference.expected, rows, fold), answer(*inputs)
        differences[rows] = _differences(answers, target)
        calls += int((answers[2] != target[2]).sum())
    return _parity(name, reference.images, differences, calls)


def compare_predictions(name: str, answers: EnsemblePredictions, reference: Reference) -> Parity:
    """Compare the predictions of an ensemble that was loaded from an export with those of `predict`."""
    rows = list(range(len(reference.images)))
    target, own = _expected(reference.expected, rows, None), _expected(answers, rows, None)
    return _parity(name, reference.images, _differences(own, target), int((own[2] != target[2]).sum()))


def _differences(answers: Answers, target: Answers) -> Floats:
    """The largest difference of a probability of each image, [b]."""
    ensemble, folds = (np.abs(own - other) for own, other in zip(answers[:2], target[:2], strict=True))
    return np.asarray(np.maximum(ensemble.max(axis=1), folds.max(axis=(1, 2))))


def _parity(name: str, images: Sequence[ParityImage], differences: Floats, calls: int) -> Parity:
    worst = int(np.argmax(differences))  # NaN counts as the largest
    return Parity(name, len(images), float(differences[worst]), images[worst].name, calls)


def _batches(images: Sequence[ParityImage], reference: Reference) -> Iterator[tuple[list[int], list[npt.NDArray[Any]]]]:
    """Batches of images that are seen in one size: their positions, and what a file takes.

    A file takes pixels [b, H, W, C], and codes [b, F] of metadata where its models do.
    """
    prepared = Photographs.prepare([i.data for i in images], reference.size, [i.about for i in images])
    codes = prepared.metadata(reference.fields)
    by_shape: dict[tuple[int, ...], list[tuple[int, npt.NDArray[np.uint8]]]] = {}
    for at, jpeg in enumerate(prepared.jpegs):
        view = images[at].view
        pixels = decoded(jpeg) if view is None else view
        by_shape.setdefault(pixels.shape, []).append((at, pixels))
    for group in by_shape.values():
        rows, inputs = [at for at, _ in group], [np.stack([pixels for _, pixels in group])]
        yield rows, [*inputs, codes[rows]] if reference.fields else inputs


def decoded(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """The pixels [H, W, 3] of a prepared image, as `predict.py` decodes it."""
    with open_image(jpeg) as image:
        return np.asarray(image.convert("RGB"))


def _expected(predictions: EnsemblePredictions, rows: list[int], fold: int | None) -> Answers:
    if fold is None:
        folds = predictions.calibrated[:, rows]
        return predictions.probability[rows], folds.transpose(1, 0, 2), predictions.positive[rows]
    probability = predictions.calibrated[fold, rows]
    thresholds = np.asarray(predictions.thresholds, dtype=np.float32)
    return probability, probability[:, None], probability >= thresholds


def rounding_of(graph: nn.Module, answer: Answer, parity: Parity, reference: Reference, fold: int | None) -> Rounding:
    """Compare `predict` and a file with the ``graph`` in float64, for the image of a parity.

    A network that amplifies rounding has no reproducible answers, whichever program computes them.
    """
    at = next(at for at, image in enumerate(reference.images) if image.name == parity.image)
    [(_, (pixels, *codes))] = _batches([reference.images[at]], reference)
    with torch.inference_mode():
        exact = copy.deepcopy(graph).double()
        outputs = exact(torch.from_numpy(pixels), *(torch.from_numpy(each).double() for each in codes))
    probability, folds, calls = (output.numpy() for output in outputs)
    target = probability, folds, calls
    own, other = _expected(reference.expected, [at], fold), answer(pixels, *codes)
    return Rounding(float(_differences(own, target)[0]), float(_differences(other, target)[0]))


def require_parity(parity: Parity, rounding: Callable[[], Rounding] | None = None, limit: float | None = None) -> None:
    """Raise MelanomaDistError unless a file answers as `predict` does.

    ``rounding``: see `rounding_of`; ``limit``: of the difference, None: `LARGEST_DIFFERENCE`.
    """
    limit = LARGEST_DIFFERENCE if limit is None else limit
    if parity.difference <= limit:  # NaN is not
        return
    text = (
        f"{parity.name}: a probability of {parity.image} differs by {parity.difference:.2g} from that of `predict`, "
        f"more than {limit:g}. No file was kept."
    )
    report = "try another --format, and please report the backbone and the versions of torch and the export packages."
    if rounding is None:
        raise MelanomaDistError(f"{text} {report.capitalize()}")
    exact = rounding()
    raise MelanomaDistError(
        f"{text} From exact arithmetic (float64), `predict` differs by {exact.predict:.2g} there, and the file by "
        f"{exact.file:.2g}. If both are far, the models amplify rounding, as random or hardly trained weights do: "
        f"train further. If the file alone is, {report}"
    )
