"""The batches of one rank: rows of the manifest, their JPEG bytes through the graph, their labels beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from melanoma_dist.data.picture import open_picture
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError
from melanoma_dist.input import stream
from melanoma_dist.input.graph import AS_IT_IS, Frame, Graph, GraphInput, View, oriented, plain, varied
from melanoma_dist.input.stream import Indices
from melanoma_dist.world import World


@dataclass(frozen=True)
class Samples:
    """The images a loader draws from."""

    shards: ShardReader
    rows: Indices  # [n] rows of the manifest
    targets: npt.NDArray[np.float32]  # [n, L] 1, 0 or NaN (unknown)
    largest: tuple[int, int]  # largest width and height among them

    def encoded(self, samples: Indices) -> list[npt.NDArray[np.uint8]]:
        """The JPEG files of samples 0..n-1, without a copy."""
        return [self.shards.jpeg(int(row)) for row in self.rows[samples]]

    def damaged(self) -> list[str]:
        """Ids of the images that cannot be decoded; slow, for when something has gone wrong."""
        return [self.shards.image_id(int(row)) for row in self.rows if not _decodes(self.shards.jpeg(int(row)))]


@dataclass(frozen=True)
class TrainingBatch:
    """A rank's share of one global batch."""

    images: torch.Tensor  # [b, 3, S, S] float32
    targets: torch.Tensor  # [b, L] float32, NaN unknown
    samples: Indices  # [b] which of the samples
    known: int  # known labels in the whole global batch: what the loss is divided by


class TrainingLoader:
    """Epochs of augmented batches. The same arguments give the same batches, on any number of ranks."""

    def __init__(
        self,
        samples: Samples,
        frame: Frame,
        batch_size: int,
        augment: str,
        balance: bool,
        seed: int,
        world: World,
    ) -> None:
        """``batch_size`` is global; ``augment`` names one of ``stream.POLICIES``."""
        self.steps = stream.steps_per_epoch(len(samples.rows), batch_size)
        self._samples, self._frame, self._batch_size = samples, frame, batch_size
        self._policy, self._balance, self._seed, self._world = stream.POLICIES[augment], balance, seed, world
        self._classes = label_patterns(samples.targets)
        self._epoch = self._first = 0
        self._order = np.zeros(0, dtype=np.int64)
        self._graph: Graph | None = None

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainingBatch]:
        """The batches of an epoch from step ``first`` on, ``steps`` of them in all."""
        if first >= self.steps:
            return
        self._epoch, self._first = epoch, first
        self._order = self._draw(epoch)
        for step, images in enumerate(self._images(), start=first):
            everyone = self._order[step * self._batch_size : (step + 1) * self._batch_size]
            mine = everyone[stream.rank_slice(self._world.rank, self._world.size)]
            targets = torch.from_numpy(self._samples.targets[mine]).to(self._world.device, non_blocking=True)
            yield TrainingBatch(images, targets, mine, int((~np.isnan(self._samples.targets[everyone])).sum()))

    def _draw(self, epoch: int) -> Indices:
        length = self.steps * self._batch_size
        if self._balance:
            return stream.balanced_order(self._seed, epoch, self._classes, length)
        return stream.epoch_order(self._seed, epoch, len(self._samples.rows), length)

    def _feed(self, turn: int) -> GraphInput | None:
        step = self._first + turn
        if step >= self.steps:
            return None
        start = step * self._batch_size
        share = stream.rank_slice(self._world.rank, self._world.size)
        drawn = stream.parameters(self._policy, self._seed, self._epoch, start, self._batch_size)[share]
        mine = self._order[start : start + self._batch_size][share]
        return varied(self._samples.encoded(mine), drawn, self._frame)

    def _images(self) -> Iterator[torch.Tensor]:
        if self._graph is None:
            self._graph = self._build_graph()
        else:
            self._graph.restart()
        return _told(self._graph, self._samples)

    def _build_graph(self) -> Graph:
        share = len(range(self._world.rank, self._batch_size, self._world.size))
        return Graph(
            self._feed,
            self._frame,
            share,
            self._world.threads,
            self._world.gpu,
            rotate=self._policy.rotation > 0,
            largest=self._samples.largest,
        )


class EvaluationLoader:
    """Each sample exactly once over all ranks, in batches whose members do not depend on the number of ranks."""

    def __init__(self, samples: Samples, frame: Frame, batch_size: int, world: World) -> None:
        """``batch_size`` is each batch's, on one rank."""
        self._samples, self._frame = samples, frame
        self._plan = list(stream.evaluation_batches(len(samples.rows), batch_size, world.rank, world.size))
        self._batch_size, self._world = batch_size, world
        self._graph: Graph | None = None
        self._view = AS_IT_IS

    def __iter__(self) -> Iterator[tuple[torch.Tensor, stream.EvaluationBatch]]:
        """Yield images [batch_size, 3, S, S] and which samples they are; equally often on every rank."""
        return self.seen(AS_IT_IS)

    def seen(self, view: View) -> Iterator[tuple[torch.Tensor, stream.EvaluationBatch]]:
        """The same, in another of the eight orientations."""
        self._view = view
        if self._graph is None:
            threads, gpu, largest = self._world.threads, self._world.gpu, self._samples.largest
            self._graph = Graph(self._feed, self._frame, self._batch_size, threads, gpu, largest=largest)
        else:
            self._graph.restart()
        for images, batch in zip(_told(self._graph, self._samples), self._plan, strict=True):
            yield oriented(images, view), batch

    def _feed(self, step: int) -> GraphInput | None:
        if step >= len(self._plan):
            return None
        return plain(self._samples.encoded(self._plan[step].samples), self._frame, self._view)


def label_patterns(targets: npt.NDArray[np.float32]) -> Indices:
    """A number per distinct row of labels [n, L]; unknown counts as a value of its own."""
    _, inverse = np.unique(np.nan_to_num(targets, nan=-1.0), axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64)


def _decodes(jpeg: npt.NDArray[np.uint8]) -> bool:
    try:
        with open_picture(jpeg.tobytes()) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def _told(graph: Graph, samples: Samples) -> Iterator[torch.Tensor]:
    """The batches of a graph; when it breaks on an image, the error names the image."""
    try:
        yield from graph
    except RuntimeError as error:
        damaged = samples.damaged()
        if not damaged:
            raise
        raise DataError(
            f"{len(damaged)} prepared images can no longer be decoded: {', '.join(damaged[:5])}. The shards were "
            "damaged after they were prepared. Copy them again, or run `data prepare` into a new folder."
        ) from error
