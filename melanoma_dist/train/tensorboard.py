"""What TensorBoard shows of a unit: scalars by step, precision-recall curves, example images with predictions."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.input.loader import Samples
from melanoma_dist.train import history
from melanoma_dist.train.metrics import FIGURES
from melanoma_dist.train.unit import Unit

_EXAMPLES_PER_CLASS = 4
_TILE = 192
_CAPTION = 16


class Board:
    """The events of one unit, in its folder. Only the main rank has one."""

    def __init__(self, unit: Unit, labels: tuple[str, ...]) -> None:
        self._folder = unit.folder
        self._labels = labels
        self._threshold = unit.config.threshold
        self._writer: SummaryWriter | None = None

    def open(self, steps: int) -> None:
        """Begin to write after ``steps`` steps; what an earlier process wrote of later ones goes."""
        history.rewrite(self._folder, steps)
        self._writer = SummaryWriter(str(self._folder))

    def step(self, step: int, loss: float, rate: float, speed: dict[str, float]) -> None:
        """Scalars of a training step."""
        writer = self._ready()
        writer.add_scalar("train/loss_running", loss, step)
        writer.add_scalar("train/learning_rate", rate, step)
        writer.add_scalar("input/images_per_s", speed["images_per_s"], step)
        writer.add_scalar("input/wait_share", speed["wait_share"], step)

    def epoch(
        self, step: int, record: dict[str, Any], samples: Samples, probability: npt.NDArray[np.float32], new_best: bool
    ) -> None:
        """Scalars and curves of a validated epoch; example images where it is the best so far."""
        writer = self._ready()
        writer.add_scalar("train/loss", record["train_loss"], step)
        writer.add_scalar("progress/epoch", record["epoch"], step)
        writer.add_scalar("progress/seconds_per_epoch", record["seconds"], step)
        for name in ("images_per_s", "wait_share"):
            writer.add_scalar(f"input/{name}", record[name], step)
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

    def flush(self) -> None:
        """See that what was written is on the disk: no checkpoint is ahead of it."""
        self._ready().flush()

    def close(self) -> None:
        """Write what is left."""
        self._ready().close()

    def _ready(self) -> SummaryWriter:
        if self._writer is None:
            raise RuntimeError("Board.open was not called")
        return self._writer

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
