"""The batches of one rank: rows of the manifest, their JPEG bytes through the graph, their labels beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError
from melanoma_dist.input import stream
from melanoma_dist.input.graph import Frame, Graph, GraphInput, plain, varied
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
        self._epoch = 0
        self._order = np.zeros(0, dtype=np.int64)
        self._graph: Graph | None = None

    def epoch(self, epoch: int) -> Iterator[TrainingBatch]:
        """The batches of an epoch, ``steps`` of them."""
        self._epoch = epoch
        self._order = self._draw(epoch)
        for step, images in enumerate(_batches(self._ready_graph())):
            everyone = self._order[step * self._batch_size : (step + 1) * self._batch_size]
            mine = everyone[stream.rank_slice(self._world.rank, self._world.size)]
            targets = torch.from_numpy(self._samples.targets[mine]).to(self._world.device, non_blocking=True)
            yield TrainingBatch(images, targets, mine, int((~np.isnan(self._samples.targets[everyone])).sum()))

    def _draw(self, epoch: int) -> Indices:
        length = self.steps * self._batch_size
        if self._balance:
            return stream.balanced_order(self._seed, epoch, self._classes, length)
        return stream.epoch_order(self._seed, epoch, len(self._samples.rows), length)

    def _feed(self, step: int) -> GraphInput | None:
        if step >= self.steps:
            return None
        start = step * self._batch_size
        share = stream.rank_slice(self._world.rank, self._world.size)
        drawn = stream.parameters(self._policy, self._seed, self._epoch, start, self._batch_size)[share]
        mine = self._order[start : start + self._batch_size][share]
        return varied(self._samples.encoded(mine), drawn, self._frame)

    def _ready_graph(self) -> Graph:
        if self._graph is not None:
            self._graph.restart()
            return self._graph
        share = len(range(self._world.rank, self._batch_size, self._world.size))
        self._graph = Graph(
            self._feed,
            self._frame,
            share,
            self._world.threads,
            self._world.gpu,
            rotate=self._policy.rotation > 0,
            largest=self._samples.largest,
        )
        return self._graph


class EvaluationLoader:
    """Each sample exactly once over all ranks, in batches whose members do not depend on the number of ranks."""

    def __init__(self, samples: Samples, frame: Frame, batch_size: int, world: World) -> None:
        """``batch_size`` is each batch's, on one rank."""
        self._samples, self._frame = samples, frame
        self._plan = list(stream.evaluation_batches(len(samples.rows), batch_size, world.rank, world.size))
        self._batch_size, self._world = batch_size, world
        self._graph: Graph | None = None

    def __iter__(self) -> Iterator[tuple[torch.Tensor, stream.EvaluationBatch]]:
        """Yield images [batch_size, 3, S, S] and which samples they are; equally often on every rank."""
        if self._graph is None:
            threads, gpu, largest = self._world.threads, self._world.gpu, self._samples.largest
            self._graph = Graph(self._feed, self._frame, self._batch_size, threads, gpu, largest=largest)
        else:
            self._graph.restart()
        yield from zip(_batches(self._graph), self._plan, strict=True)

    def _feed(self, step: int) -> GraphInput | None:
        if step >= len(self._plan):
            return None
        return plain(self._samples.encoded(self._plan[step].samples), self._frame)


def label_patterns(targets: npt.NDArray[np.float32]) -> Indices:
    """A number per distinct row of labels [n, L]; unknown counts as a value of its own."""
    _, inverse = np.unique(np.nan_to_num(targets, nan=-1.0), axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64)


def _batches(graph: Graph) -> Iterator[torch.Tensor]:
    try:
        yield from graph
    except RuntimeError as error:
        raise DataError(
            "A prepared image could not be decoded, though it could when it was prepared: the shards were damaged "
            f"since. Run `data prepare` again into a new folder. DALI said: {str(error).strip().splitlines()[-1]}"
        ) from error
