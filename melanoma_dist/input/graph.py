"""The DALI graph: encoded bytes and parameters in, normalised images out. The only module that knows DALI.

The graph is stateless. It decodes a window of each JPEG, resizes it to the square input (antialiased), mirrors it or
turns it, and applies one affine colour map that includes the normalisation. Evaluation is the same graph with the whole
image as the window. On a rank with a GPU, the `mixed` backend decodes JPEGs, its chroma upsampled as on the CPU, and
DALI's operators do the rest on the GPU. Without a GPU, DALI decodes on the CPU and PyTorch does the rest (`pixels`).

With lesion masks, a mask is a fourth channel of its image, and takes the same way with it: window, resize, turn. Its
values are 0 to 1, between them at the edge of the lesion.

Shapes: B images, C channels (3, or 4 with masks), S pixels a side.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.utils.dlpack
from nvidia.dali import fn, math, pipeline_def, types

from melanoma_dist.input.ahead import Ahead
from melanoma_dist.input.colour import colour_map, normalisation, with_mask
from melanoma_dist.input.pixels import mirrored, turned
from melanoma_dist.input.region import Windows
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
    exchange: npt.NDArray[np.bool_]  # [B] exchange the axes after all else
    turn: Floats  # [B, 2, 3] from (x, y) of the output in pixels to shares of the window; replaces flips and exchange
    colour: Floats  # [B, C, C + 1]
    masks: list[npt.NDArray[np.uint8]] | None = None  # B PNG files, as large as their images


def training_input(
    encoded: list[npt.NDArray[np.uint8]],
    parameters: Parameters,
    expected: InputFormat,
    masks: list[npt.NDArray[np.uint8]] | None = None,
) -> GraphInput:
    """Build a training batch: each image, and its mask where there are any, with its random parameters.

    A rotated image is cut from the middle of a larger square, just large enough that no corner lies outside the window:
    no border needs filling.
    """
    angle = np.deg2rad(parameters.angle.astype(np.float64))
    zoom = np.abs(np.cos(angle)) + np.abs(np.sin(angle))
    side = np.ceil(expected.size * zoom - 1e-3)
    size = np.where(parameters.flip, -side[:, None], side[:, None]).astype(np.float32)
    colour = colour_map(parameters, expected.mean, expected.std)
    turn = _turn(parameters, angle, expected.size * zoom, expected.size)
    colour = with_mask(colour) if masks else colour
    return GraphInput(encoded, parameters.anchor, parameters.extent, size, parameters.exchange, turn, colour, masks)


def _turn(parameters: Parameters, angle: npt.NDArray[np.float64], side: npt.NDArray[np.float64], output: int) -> Floats:
    """The map [B, 2, 3] from output pixels to shares of the window: exchange, rotation and flips about the centre.

    ``side`` [B]: of the square that the window fills, in pixels of the output.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)
    linear *= np.where(parameters.flip[:, ::-1], -1.0, 1.0)[:, :, None] / side[:, None, None]  # rows are x and y
    linear = np.where(parameters.exchange[:, None, None], linear[:, :, ::-1], linear)
    shift = 0.5 - linear.sum(axis=2) * output / 2
    return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)


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
    encoded: list[npt.NDArray[np.uint8]], expected: InputFormat, view: Orientation = UPRIGHT,
    windows: Windows | None = None, masks: list[npt.NDArray[np.uint8]] | None = None,
) -> GraphInput:  # fmt: skip
    """Build an evaluation batch: each image whole, resized to the square, normalised, in the orientation ``view``.

    With ``windows`` [B], those parts of the images.
    """
    count = len(encoded)
    whole = np.ones((count, 2), dtype=np.float32)
    anchor, extent = (0 * whole, whole) if windows is None else (windows.anchor, windows.extent)
    size = whole * np.where((view.down, view.across), -expected.size, expected.size).astype(np.float32)
    exchange = np.full(count, view.exchanged)
    turn = np.zeros((count, 2, 3), dtype=np.float32)  # an evaluation rotates nothing
    colour = normalisation(expected.mean, expected.std, count)
    colour = with_mask(colour) if masks else colour
    return GraphInput(encoded, anchor, extent, size, exchange, turn, colour, masks)


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
        masks: bool = False,
    ) -> None:
        """``gpu``: device index, or None for the CPU. ``largest``: the largest width and height of all images.

        ``masks``: whether the inputs have masks.
        """
        self._ahead = Ahead(feed)
        self._gpu, self._rotate = gpu, rotate
        self._exchange: deque[npt.NDArray[np.bool_]] = deque()  # of the batches that DALI works on
        # The pipeline keeps the source where Python's garbage collector does not look: if the source kept the feed,
        # whose owner often keeps this graph, all three would stay for ever.
        this = weakref.ref(self)

        def source(info: Any) -> Sequence[Any]:
            graph = this()
            batch = None if graph is None else graph._ahead(info.iteration)
            if graph is None or batch is None:
                raise StopIteration
            graph._exchange.append(batch.exchange)
            fields: tuple[Any, ...] = (batch.encoded, batch.anchor, batch.extent, batch.size, batch.colour)
            fields = (*fields, batch.turn) if rotate else (*fields, batch.exchange) if gpu is None else fields
            return (*fields, batch.masks) if masks else fields

        build = _on_cpu if gpu is None else _on_gpu
        self._pipeline = build(
            source, expected.size, rotate, masks, largest or (expected.size, expected.size),
            batch_size=batch_size, num_threads=threads, device_id=gpu, prefetch_queue_depth=2,
        )  # fmt: skip
        self._pipeline.build()

    def restart(self) -> None:
        """Start again at ``feed(0)``, after the end was reached."""
        self._ahead.restart()
        self._exchange.clear()
        self._pipeline.reset()

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield float32 [B, C, S, S] in channels-last layout until the feed ends.

        On a GPU the batch belongs to the current stream: kernels wait for it there, and the host waits for nothing.
        """
        while True:
            stream = None if self._gpu is None else torch.cuda.current_stream(self._gpu)
            try:
                (images,) = self._pipeline.run(stream)
            except StopIteration:
                return
            # [B, S, S, C] seen as [B, C, S, S]: the layout that convolutions are fastest in, without a copy.
            batch = torch.utils.dlpack.from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)
            exchange = self._exchange.popleft()
            in_graph = self._gpu is None or self._rotate
            yield batch if in_graph else _exchanged(batch, exchange)


def _exchanged(images: torch.Tensor, which: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Exchange the axes of the images [B, C, S, S] where ``which`` [B] is true."""
    if not which.any():
        return images
    # From memory that is not pinned, `non_blocking` copies at once, but does not wait for the kernels in the stream.
    chosen = torch.from_numpy(which).to(images.device, non_blocking=True)[:, None, None, None]
    return torch.where(chosen, images.transpose(2, 3), images).contiguous(memory_format=torch.channels_last)


Source = Callable[[Any], Sequence[Any]]


@pipeline_def  # type: ignore[untyped-decorator]
def _on_cpu(source: Source, side: int, rotate: bool, masks: bool, largest: tuple[int, int]) -> Any:
    encoded, anchor, extent, size, colour, orientation, *mask = _inputs(source, 7 if masks else 6)
    images = _masked(_decoded(encoded, anchor, extent, device="cpu"), mask, anchor, extent, device="cpu")
    function = partial(_each, partial(turned, side=side) if rotate else mirrored)
    return fn.python_function(
        images, size, colour, orientation, function=function, batch_processing=True, output_layouts="HWC"
    )


def _each(function: Callable[..., Floats], *batches: list[npt.NDArray[Any]]) -> list[Floats]:
    return [function(*values) for values in zip(*batches, strict=True)]


@pipeline_def  # type: ignore[untyped-decorator]
def _on_gpu(source: Source, side: int, rotate: bool, masks: bool, largest: tuple[int, int]) -> Any:
    encoded, anchor, extent, *place = _inputs(source, 5 + rotate + masks)
    mask = [place.pop()] if masks else []
    # One decoder for all images of a batch: their bits do not depend on their position in it.
    hints = {"preallocate_width_hint": largest[0], "preallocate_height_hint": largest[1], "hw_decoder_load": 1.0}
    images = _masked(_decoded(encoded, anchor, extent, device="mixed", **hints), mask, anchor, extent, device="mixed")
    if not rotate:
        return mirrored_by_dali(images, *place)
    size, colour, turn = place
    return turned_by_dali(images, size, colour, turn, side)


def mirrored_by_dali(images: Any, size: Any, colour: Any) -> Any:
    """``pixels.mirrored`` by DALI's operators, whose resize repeats the edge. `Graph` exchanges the axes."""
    images = fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.coord_transform(images, MT=colour, dtype=types.FLOAT)


def turned_by_dali(images: Any, size: Any, colour: Any, turn: Any, side: int) -> Any:
    """``pixels.turned``, by DALI's operators."""
    sampled = math.min(math.abs(size), fn.cast(images.shape()[0:2], dtype=types.FLOAT))
    images = fn.resize(images, size=sampled, interp_type=types.INTERP_LINEAR, antialias=True)
    pixels = fn.reshape(fn.stack(sampled[1], sampled[0]), shape=[2, 1])  # x, then y
    images = fn.warp_affine(
        images, matrix=turn * pixels, size=[side, side], interp_type=types.INTERP_LINEAR, dtype=types.FLOAT
    )
    return fn.coord_transform(images, MT=colour, dtype=types.FLOAT)


def _inputs(source: Source, count: int) -> Any:
    return fn.external_source(source=source, num_outputs=count, batch=True, batch_info=True, parallel=False)


def _masked(images: Any, masks: Sequence[Any], anchor: Any, extent: Any, device: str) -> Any:
    """Add the same windows of masks, if there are any, as a last channel."""
    windows = [
        fn.decoders.image_slice(mask, anchor, extent, axis_names="HW", output_type=types.GRAY, device=device)
        for mask in masks
    ]
    return fn.cat(images, *windows, axis=2) if windows else images


def _decoded(encoded: Any, anchor: Any, extent: Any, **options: Any) -> Any:
    return fn.decoders.image_slice(
        encoded, anchor, extent, axis_names="HW", output_type=types.RGB, jpeg_fancy_upsampling=True, **options
    )
