"""The order of samples and their random parameters, as pure functions of (seed, epoch, position).

Nothing here has state. Random numbers are the raw 64-bit words of NumPy's Philox4x64-10, a counter-based generator. It
computes the numbers of any position without those before it, so a global batch does not depend on the number of ranks,
and a resumed run needs only a cursor. Only raw words are used: their sequence is fixed by the algorithm, while the
methods of ``numpy.random.Generator`` may change between versions.

Shapes: n samples of a fold, B images of a global batch, R ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melanoma_dist.config.run import Augmentation

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

BLANKED = 0.25
"""The share of training images for which a field of metadata is withheld, each field by itself."""
_ORDER, _DRAW, _AUGMENT, _BOX, _BLANK = 1, 2, 3, 4, 5  # purposes: each has random numbers of its own
_WORDS_PER_BLOCK = 4  # of one Philox counter value
_BLOCKS_PER_SAMPLE = 3  # twelve random numbers a sample


@dataclass(frozen=True)
class Policy:
    """How strongly training images are varied. Ranges are uniform unless stated otherwise.

    area: smallest share of the image's area that a crop keeps. aspect: largest factor by which a crop's sides deviate
    from the image's own aspect (log-uniform). flips: all eight orientations, equally often. rotation: degrees to either
    side. brightness, contrast, saturation: factors 1 ± this. hue: degrees to either side. box_shift: of a lesion's
    window, in shares of its sides, to either side. box_zoom: largest factor by which its size deviates (log-uniform).
    """

    area: float = 1.0
    aspect: float = 1.0
    flips: bool = False
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    box_shift: float = 0.0
    box_zoom: float = 1.0


POLICIES: dict[Augmentation, Policy] = {
    "none": Policy(),
    # For fine-tuning on little data or for quick runs: what changes no diagnosis and costs little.
    "light": Policy(
        area=0.6,
        aspect=4 / 3,
        flips=True,
        brightness=0.1,
        contrast=0.1,
        saturation=0.1,
        hue=4.0,
        box_shift=0.05,
        box_zoom=1.15,
    ),
    # A dermoscope has no upright, comes at any distance and with any lamp: full rotation, wider crops, more colour.
    "dermoscopy": Policy(
        area=0.4,
        aspect=4 / 3,
        flips=True,
        rotation=180.0,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=8.0,
        box_shift=0.1,
        box_zoom=1.3,
    ),
}


@dataclass(frozen=True)
class Parameters:
    """Random parameters of n samples. Windows are in shares of the image, 0 to 1, as (y, x)."""

    anchor: Floats  # [n, 2] upper left corner of the crop
    extent: Floats  # [n, 2] height and width of the crop
    flip: npt.NDArray[np.bool_]  # [n, 2] vertical, horizontal
    exchange: npt.NDArray[np.bool_]  # [n] then the axes: with both flips, all eight orientations
    angle: Floats  # [n] degrees, counter-clockwise
    brightness: Floats  # [n] factor
    contrast: Floats  # [n] factor
    saturation: Floats  # [n] factor
    hue: Floats  # [n] degrees

    def __getitem__(self, rows: Indices | slice) -> Parameters:
        # Contiguous: a share of a rank is strided, and DALI refuses strided arrays.
        return Parameters(*(np.ascontiguousarray(getattr(self, name)[rows]) for name in self.__dataclass_fields__))


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return how many steps draw each of ``n`` samples at least once."""
    return -(-n // batch_size)


def epoch_order(seed: int, epoch: int, n: int, length: int) -> Indices:
    """Return the samples of an epoch in order, int64 [length]: a permutation of n, repeated up to ``length``.

    With ``length = steps * B`` every batch is full, every sample is seen, and fewer than B are seen twice.
    """
    order: Indices = np.argsort(_words(seed, _ORDER, epoch, 0, n), kind="stable").astype(np.int64)
    repeated: Indices = np.take(order, np.arange(length) % n)
    return repeated


def balanced_order(seed: int, epoch: int, classes: npt.NDArray[np.int64], length: int) -> Indices:
    """Draw ``length`` samples with replacement, each value of ``classes`` [n] equally often in expectation."""
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    cumulative = np.cumsum(1.0 / counts[inverse])
    draws = _uniform(_words(seed, _DRAW, epoch, 0, length)) * cumulative[-1]
    samples: Indices = np.searchsorted(cumulative, draws, side="right").astype(np.int64)
    return np.minimum(samples, len(classes) - 1)  # rounding must not lead past the end


def rank_slice(rank: int, ranks: int) -> slice:
    """Return a rank's share of a global batch. The shares together are the batch; their sizes differ by one at most."""
    return slice(rank, None, ranks)


def parameters(policy: Policy, seed: int, epoch: int, start: int, count: int) -> Parameters:
    """Return the random parameters of positions ``start`` to ``start + count`` of an epoch."""
    words = _words(seed, _AUGMENT, epoch, start * _BLOCKS_PER_SAMPLE, count * _BLOCKS_PER_SAMPLE * _WORDS_PER_BLOCK)
    u = _uniform(words).reshape(count, -1)  # [count, 12]
    anchor, extent = _window(policy, u[:, 0:4])
    return Parameters(
        anchor=anchor.astype(np.float32),
        extent=extent.astype(np.float32),
        flip=(u[:, 4:6] < 0.5) & policy.flips,
        exchange=(u[:, 11] < 0.5) & policy.flips,
        angle=_spread(u[:, 6], policy.rotation),
        brightness=1 + _spread(u[:, 7], policy.brightness),
        contrast=1 + _spread(u[:, 8], policy.contrast),
        saturation=1 + _spread(u[:, 9], policy.saturation),
        hue=_spread(u[:, 10], policy.hue),
    )


def blanked(seed: int, epoch: int, n: int, fields: int) -> npt.NDArray[np.bool_]:
    """Return which of up to four fields of metadata an epoch withholds of each sample, bool [n, fields].

    A model that often sees an image without a field answers without it, and cannot learn from what is missing which
    collection an image is of.
    """
    words = _words(seed, _BLANK, epoch, 0, n * _WORDS_PER_BLOCK)
    withheld: npt.NDArray[np.bool_] = _uniform(words).reshape(n, _WORDS_PER_BLOCK)[:, :fields] < BLANKED
    return withheld


@dataclass(frozen=True)
class BoxJitter:
    """Random changes of the windows around lesions."""

    shift: Floats  # [n, 2] (y, x) in shares of the window's sides
    zoom: Floats  # [n] factor of its sides

    def __getitem__(self, rows: Indices | slice) -> BoxJitter:
        return BoxJitter(self.shift[rows], self.zoom[rows])


def box_jitter(policy: Policy, seed: int, epoch: int, start: int, count: int) -> BoxJitter:
    """Return the random changes of lesions' windows at positions ``start`` to ``start + count`` of an epoch."""
    words = _words(seed, _BOX, epoch, start, count * _WORDS_PER_BLOCK)
    u = _uniform(words).reshape(count, _WORDS_PER_BLOCK)
    zoom = np.exp((2 * u[:, 2] - 1) * np.log(policy.box_zoom))
    return BoxJitter(_spread(u[:, :2], policy.box_shift), zoom.astype(np.float32))


@dataclass(frozen=True)
class EvaluationBatch:
    """One batch of one rank. The first ``count`` samples count; the rest is padding."""

    samples: Indices  # [batch_size]
    count: int
    metadata: Floats | None = None  # [batch_size, F] codes, for a model that takes them


def evaluation_batches(n: int, batch_size: int, rank: int, ranks: int) -> Iterator[EvaluationBatch]:
    """Yield a rank's batches of an evaluation. Each of n samples counts exactly once over all ranks.

    Batch j of the whole holds the same samples and is full, whichever rank computes it: predictions are the same bits
    on any number of ranks. Every rank gets equally many batches; those beyond the end count nothing.
    """
    batches = -(-n // batch_size)
    for turn in range(-(-batches // ranks)):
        start = (turn * ranks + rank) * batch_size
        samples = np.arange(start, start + batch_size, dtype=np.int64)
        yield EvaluationBatch(np.minimum(samples, n - 1), int(np.clip(n - start, 0, batch_size)))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return a seed for a rank's dropout in one step, 0 to 2**63 - 1."""
    return int(np.random.Philox(key=[seed, step], counter=[0, 0, rank, 1]).random_raw() >> np.uint64(1))


def _words(seed: int, purpose: int, epoch: int, block: int, count: int) -> npt.NDArray[np.uint64]:
    # Key and counter never collide: each purpose and epoch has a key of its own, each position counters of its own.
    key = np.array([seed, (purpose << 32) + epoch], dtype=np.uint64)
    return np.random.Philox(key=key, counter=block).random_raw(count)


def _uniform(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """The upper 53 bits as float64 in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _spread(u: npt.NDArray[np.float64], half_width: float) -> Floats:
    return ((2 * u - 1) * half_width).astype(np.float32)


def _window(policy: Policy, u: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Anchor and extent [n, 2] from four uniforms: area, aspect, position. Sides are cut to the image."""
    area = policy.area + (1 - policy.area) * u[:, 0]
    aspect = np.exp((2 * u[:, 1] - 1) * np.log(policy.aspect))
    extent = np.minimum(np.sqrt(np.stack([area / aspect, area * aspect], axis=1)), 1.0)
    return (1 - extent) * u[:, 2:4], extent
