"""The DALI graph: encoded bytes and parameters in, normalised images out. The only module that knows DALI.

The graph is stateless. It decodes a window of each JPEG, resizes it to the square input (antialiased; a negative size
flips), optionally rotates it, and applies one affine colour map that includes the normalisation. Evaluation is the same
graph with the whole image as the window. On a rank with a GPU, the `mixed` backend decodes JPEGs, its chroma upsampled
as on the CPU, and all that follows runs on the GPU. Without a GPU, all of it runs on the CPU.

Shapes: B images, S pixels a side.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.utils.dlpack
from nvidia.dali import fn, pipeline_def, types
from torch.nn import functional

from melanoma_dist.input.colour import colour_map, normalisation
from melanoma_dist.input.stream import Floats, Parameters


@dataclass(frozen=True)
class InputFormat:
    """The input of a backbone: side in pixels, mean and std in shares of white (3 values each)."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class GraphInput:
    """One batch of B images, before the graph."""

    encoded: list[npt.NDArray[np.uint8]]  # B JPEG files
    anchor: Floats  # [B, 2] window, shares of height and width
    extent: Floats  # [B, 2]
    size: Floats  # [B, 2] pixels to resize the window to; negative flips
    angle: Floats  # [B] degrees
    colour: Floats  # [B, 3, 4]


def training_input(encoded: list[npt.NDArray[np.uint8]], parameters: Parameters, expected: InputFormat) -> GraphInput:
    """Build a training batch: each image with its random parameters.

    A rotated image is cut from the middle of a larger resize, just large enough that no corner lies outside the window:
    no border needs filling.
    """
    turn = np.deg2rad(parameters.angle)
    side = np.ceil(expected.size * (np.abs(np.cos(turn)) + np.abs(np.sin(turn))) - 1e-3)
    size = np.where(parameters.flip, -side[:, None], side[:, None]).astype(np.float32)
    colour = colour_map(parameters, expected.mean, expected.std)
    return GraphInput(encoded, parameters.anchor, parameters.extent, size, parameters.angle, colour)


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of an image: mirrored along its axes, then its axes exchanged."""

    down: bool = False
    across: bool = False
    exchanged: bool = False


ORIENTATIONS = tuple(
    Orientation(down, across, turned) for turned in (False, True) for down in (False, True) for across in (False, True)
)
"""Unchanged, mirrored, upside down, both (half a turn); then the same with exchanged axes, two of them quarter turns.
Test-time augmentation takes the first n of them: a dermoscopic image has no upright."""
UPRIGHT = ORIENTATIONS[0]


def evaluation_input(
    encoded: list[npt.NDArray[np.uint8]], expected: InputFormat, view: Orientation = UPRIGHT
) -> GraphInput:
    """Build an evaluation batch: each image whole, resized to the square, normalised, mirrored for ``view``.

    ``exchange_axes`` exchanges the axes after the graph.
    """
    count = len(encoded)
    whole = np.ones((count, 2), dtype=np.float32)
    angle = np.zeros(count, dtype=np.float32)
    size = whole * np.where((view.down, view.across), -expected.size, expected.size).astype(np.float32)
    return GraphInput(encoded, 0 * whole, whole, size, angle, normalisation(expected.mean, expected.std, count))


def exchange_axes(images: torch.Tensor, which: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Exchange the axes of the images [B, 3, S, S] of the graph's output where ``which`` [B] is true."""
    if not which.any():
        return images
    chosen = torch.from_numpy(which).to(images.device)[:, None, None, None]
    return torch.where(chosen, images.transpose(2, 3), images).contiguous(memory_format=torch.channels_last)


class Graph:
    """Batches of images on a device, one per call of ``feed`` until it returns None.

    ``feed(i)`` returns the i-th input since the start or the last ``restart``. It is called ahead of the iteration.
    """

    def __init__(
        self,
        feed: Callable[[int], GraphInput | None],
        expected: InputFormat,
        batch_size: int,
        threads: int,
        gpu: int | None = None,
        rotate: bool = False,
        largest: tuple[int, int] | None = None,
    ) -> None:
        """``gpu``: device index, or None for the CPU. ``largest``: the largest width and height of all images."""

        self._feed = feed
        # The pipeline keeps the source where Python's garbage collector does not look: if the source kept the feed,
        # whose owner often keeps this graph, all three would stay for ever.
        this = weakref.ref(self)

        def source(info: Any) -> Sequence[Any]:
            graph = this()
            batch = None if graph is None else graph._feed(info.iteration)
            if batch is None:
                raise StopIteration
            fields = (batch.encoded, batch.anchor, batch.extent, batch.size, batch.colour)
            return (*fields, batch.angle) if rotate else fields

        self._pipeline = _pipeline(
            source, expected.size, rotate, None if gpu is None else largest or (expected.size, expected.size),
            batch_size=batch_size, num_threads=threads, device_id=gpu, prefetch_queue_depth=2,
        )  # fmt: skip
        self._pipeline.build()

    def restart(self) -> None:
        """Start again at ``feed(0)``, after the end was reached."""
        self._pipeline.reset()

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield float32 [B, 3, S, S] in channels-last layout until the feed ends."""
        while True:
            try:
                (images,) = self._pipeline.run()
            except StopIteration:
                return
            # [B, S, S, 3] seen as [B, 3, S, S]: the layout that convolutions are fastest in, without a copy.
            yield torch.utils.dlpack.from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)


@pipeline_def  # type: ignore[untyped-decorator]
def _pipeline(source: Callable[[Any], Sequence[Any]], side: int, rotate: bool, largest: tuple[int, int] | None) -> Any:
    """``largest`` is None for the CPU."""
    encoded, anchor, extent, size, colour, *angle = fn.external_source(
        source=source, num_outputs=6 if rotate else 5, batch=True, batch_info=True, parallel=False
    )
    images = _decoded(encoded, anchor, extent, largest)
    if largest is None:
        images = fn.python_function(images, size, function=_resized, batch_processing=True, output_layouts="HWC")
    else:
        images = fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
    if rotate:
        images = fn.rotate(images, angle=angle[0], size=[side, side], interp_type=types.INTERP_LINEAR, fill_value=0)
    return fn.coord_transform(images, MT=colour, dtype=types.FLOAT)


def _decoded(encoded: Any, anchor: Any, extent: Any, largest: tuple[int, int] | None) -> Any:
    hints: dict[str, Any] = {}
    if largest is not None:
        hints = {"preallocate_width_hint": largest[0], "preallocate_height_hint": largest[1]}
    return fn.decoders.image_slice(
        encoded,
        anchor,
        extent,
        device="cpu" if largest is None else "mixed",
        axis_names="HW",
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,
        **hints,
    )


def _resized(images: list[npt.NDArray[np.uint8]], sizes: list[Floats]) -> list[npt.NDArray[np.uint8]]:
    """Resize on the CPU by PyTorch's antialiased kernel for bytes, which takes a fifth of the time of DALI's.

    Its pixels are those of PIL. DALI's differ only at the outermost pixels, where it repeats the edge.
    """
    resized_images = []
    for image, size in zip(images, sizes, strict=True):
        height, width = (int(side) for side in np.abs(size))
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        resized = functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        flipped = [axis for axis in (0, 1) if size[axis] < 0]
        resized_images.append(np.ascontiguousarray((resized.flip(flipped) if flipped else resized).numpy()))
    return resized_images
