"""What TensorBoard shows of a unit: scalars by step, precision-recall curves, example images with predictions."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.input.loader import Samples
from melanoma_dist.train import tensorboard_history
from melanoma_dist.train.metrics import FIGURES
from melanoma_dist.train.unit import Unit

P = ParamSpec("P")
_EXAMPLES_PER_CLASS = 4
_TILE = 192
_CAPTION = 16


def _tolerant(
    draw: Callable[Concatenate[TensorBoardLogger, P], None],
) -> Callable[Concatenate[TensorBoardLogger, P], None]:
    """A method of the tensorboard that draws nothing where the disk refuses it: curves are not worth a training."""

    @wraps(draw)
    def call(self: TensorBoardLogger, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw(self, *args, **kwargs)
        except OSError as error:
            self.fall_silent(error)

    return call


class TensorBoardLogger:
    """The events of one unit, in its folder. Only the main rank has one.

    Where the disk refuses them, it falls silent until the next epoch.
    """

    def __init__(self, unit: Unit, labels: tuple[str, ...], warn: Callable[[str], object] = lambda text: None) -> None:
        """``warn`` is told that it fell silent."""
        self._warn = warn
        self._folder = unit.folder
        self._labels = labels
        self._threshold = unit.config.threshold
        self._writer: SummaryWriter | None = None

    @_tolerant
    def open(self, steps: int, validated: bool) -> None:
        """Begin to write after ``steps`` steps; what an earlier process wrote of later ones goes.

        ``validated``: no epoch is unfinished there.
        """
        tensorboard_history.rewrite(self._folder, steps, validated)
        self._writer = SummaryWriter(str(self._folder))

    @_tolerant
    def step(self, step: int, loss: float, rate: float, speed: dict[str, float]) -> None:
        """Scalars of a training step."""
        writer = self._writer
        if writer is None:
            return
        writer.add_scalar("train/loss_running", loss, step)
        writer.add_scalar("train/learning_rate", rate, step)
        writer.add_scalar("input/images_per_s", speed["images_per_s"], step)
        writer.add_scalar("input/wait_share", speed["wait_share"], step)

    @_tolerant
    def epoch(
        self, step: int, record: dict[str, Any], samples: Samples, probability: npt.NDArray[np.float32], new_best: bool
    ) -> None:
        """Scalars and curves of a validated epoch; example images where it is the best so far."""
        writer = self._writer = self._writer or SummaryWriter(str(self._folder))
        writer.add_scalar("train/loss", record["train_loss"], step)
        writer.add_scalar("progress/epoch", record["epoch"], step)
        writer.add_scalar("progress/seconds_per_epoch", record["seconds"], step)
        for name in ("images_per_s", "wait_share"):
            writer.add_scalar(f"progress/{name}", record[name], step)
        found = record["validation"]
        for figure in FIGURES:
            if found["macro"][figure] is not None:
                writer.add_scalar(f"validation_{figure}/macro", found["macro"][figure], step)
        for column, label in enumerate(self._labels):
            for figure in FIGURES:
                if found["labels"][label][figure] is not None:
                    writer.add_scalar(f"validation_{figure}/{label}", found["labels"][label][figure], step)
            known = ~np.isnan(samples.targets[:, column])
            if known.any():
                truth = samples.targets[known, column]
                writer.add_pr_curve(f"validation/{label}", truth, probability[known, column], step)
        if new_best:
            writer.add_image("validation/examples", self._examples(samples, probability), step, dataformats="HWC")
        writer.flush()

    @_tolerant
    def flush(self) -> None:
        """See that what was written is on the disk: no checkpoint is ahead of it."""
        if self._writer is not None:
            self._writer.flush()

    @_tolerant
    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()

    def fall_silent(self, error: OSError) -> None:
        """The disk refused an event."""
        self._warn(f"{self._folder}: TensorBoard's curves pause until the next epoch ({error.strerror or error}).")
        self._writer = None

    def _examples(self, samples: Samples, probability: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Melanomas above, others below, the same images each time; green where the call is right, red where not."""
        column = self._labels.index(HEADLINE)
        rows = []
        for truth in (1, 0):
            members = np.flatnonzero(samples.targets[:, column] == truth)
            chosen = members[np.linspace(0, len(members) - 1, _EXAMPLES_PER_CLASS).astype(int)]
            rows.append(np.hstack([self._tile(samples, int(i), probability[i, column], truth) for i in chosen]))
        return np.vstack(rows)

    def _tile(self, samples: Samples, sample: int, probability: float, truth: int) -> npt.NDArray[np.uint8]:
        jpeg = samples.encoded(np.array([sample]))[0]
        picture = Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")
        tile = Image.new("RGB", (_TILE, _TILE + _CAPTION), "white")
        tile.paste(ImageOps.fit(picture, (_TILE, _TILE)), (0, 0))
        right = (probability >= self._threshold) == bool(truth)
        text = f"{HEADLINE if truth else 'not ' + HEADLINE}: {probability:.2f}"
        ImageDraw.Draw(tile).text((4, _TILE + 2), text, fill=(0, 110, 40) if right else (170, 0, 0))
        return np.asarray(tile)
