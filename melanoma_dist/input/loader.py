"""The batches of one rank: the JPEG bytes of manifest rows, through the graph, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from melanoma_dist.config.run import Augmentation
from melanoma_dist.errors import CorruptImages, DataError, is_of_memory
from melanoma_dist.input import stream
from melanoma_dist.input.graph import (
    UPRIGHT,
    Graph,
    GraphInput,
    InputFormat,
    Orientation,
    evaluation_input,
    training_input,
)
from melanoma_dist.input.region import jittered, within
from melanoma_dist.input.samples import Samples
from melanoma_dist.input.stream import Floats, Indices, Parameters
from melanoma_dist.world import World


@dataclass(frozen=True)
class TrainingBatch:
    """A rank's share of one global batch."""

    images: torch.Tensor  # [b, 3, S, S] float32; 4 channels for a model that sees masks
    targets: torch.Tensor  # [b, L] float32, NaN unknown; or masks [b, 1, S, S], 0 to 1
    samples: Indices  # [b] which of the samples
    known: int  # known labels, or masks, in the whole global batch: what the loss is divided by
    metadata: torch.Tensor | None = None  # [b, F] float32 codes, NaN unknown

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        """What the model takes: images, and metadata if it was built for them."""
        return (self.images,) if self.metadata is None else (self.images, self.metadata)


class TrainingLoader:
    """Epochs of augmented batches. The same arguments give the same batches, on any number of ranks."""

    def __init__(
        self,
        samples: Samples,
        image_format: InputFormat,
        batch_size: int,
        augment: Augmentation,
        balance: bool,
        seed: int,
        world: World,
    ) -> None:
        """``batch_size`` is that of all ranks together; ``balance`` draws each label set equally often."""
        self.steps = stream.steps_per_epoch(len(samples.rows), batch_size)
        self._samples, self._format, self._batch_size = samples, image_format, batch_size
        self._policy, self._balance, self._seed, self._world = stream.POLICIES[augment], balance, seed, world
        self._classes = label_patterns(samples.targets)
        self._share = stream.rank_slice(world.rank, world.size)
        self._epoch = self._first = 0
        self._order = np.zeros(0, dtype=np.int64)
        self._graph: Graph | None = None

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch from step ``first`` on. An epoch has ``steps`` batches."""
        if first >= self.steps:
            return
        self._epoch, self._first = epoch, first
        self._order = self._draw(epoch)
        codes = self._codes(epoch)
        for step, images in enumerate(self._images(), start=first):
            batch = self._order[step * self._batch_size : (step + 1) * self._batch_size]  # of all ranks
            share = batch[self._share]
            truth, known = self._on_device(self._samples.truth(share)), ~np.isnan(self._samples.truth(batch))
            if self._samples.learns_masks:
                images, masks = split_mask(images)
                truth = masks * truth[:, :, None, None]  # NaN where the sample is corrupt
            metadata = None if codes is None else self._on_device(codes[share])
            yield TrainingBatch(images, truth, share, int(known.sum()), metadata)

    def _on_device(self, values: Floats) -> torch.Tensor:
        return torch.from_numpy(values).to(self._world.device, non_blocking=True)

    def _codes(self, epoch: int) -> Floats | None:
        """The metadata [n, F] of all samples, with the fields that the epoch withholds blanked."""
        codes = self._samples.metadata
        if codes is None:
            return None
        return np.where(stream.blanked(self._seed, epoch, *codes.shape), np.float32(np.nan), codes)

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
        samples = self._order[start : start + self._batch_size][self._share]
        drawn = self._parameters(start, samples)
        return training_input(self._samples.encoded(samples), drawn, self._format, self._samples.masks(samples))

    def _parameters(self, start: int, samples: Indices) -> Parameters:
        place = self._policy, self._seed, self._epoch, start, self._batch_size
        drawn = stream.parameters(*place)[self._share]
        windows = self._samples.windows_of(samples)
        return drawn if windows is None else within(drawn, jittered(windows, stream.box_jitter(*place)[self._share]))

    def _images(self) -> Iterator[torch.Tensor]:
        if self._graph is None:
            self._graph = self._build_graph()
        else:
            self._graph.restart()
        return _name_corrupt(self._graph, self._samples, _training_error)

    def _build_graph(self) -> Graph:
        share = len(range(self._world.rank, self._batch_size, self._world.size))
        return Graph(
            self._feed,
            self._format,
            share,
            self._world.threads,
            self._world.gpu,
            rotate=self._policy.rotation > 0,
            largest=self._samples.largest,
            masks=self._samples.has_masks,
        )


class EvaluationLoader:
    """Each sample exactly once over all ranks, in batches whose members do not depend on the number of ranks."""

    def __init__(self, samples: Samples, image_format: InputFormat, batch_size: int, world: World) -> None:
        """``batch_size`` is that of one rank."""
        self._samples, self._format = samples, image_format
        plan = stream.evaluation_batches(len(samples.rows), batch_size, world.rank, world.size)
        codes = samples.metadata
        self._plan = [each if codes is None else replace(each, metadata=codes[each.samples]) for each in plan]
        self._batch_size, self._world = batch_size, world
        self._graph: Graph | None = None
        self._view = UPRIGHT

    def __iter__(self) -> Iterator[tuple[torch.Tensor, stream.EvaluationBatch]]:
        """Yield images [batch_size, C, S, S] and their samples, as many batches on every rank.

        Of samples with masks, the mask is a fourth channel: see `split_mask`.
        """
        return self.batches(UPRIGHT)

    def __len__(self) -> int:
        """The number of batches of this rank."""
        return len(self._plan)

    def batches(self, view: Orientation) -> Iterator[tuple[torch.Tensor, stream.EvaluationBatch]]:
        """Yield the same batches in another of the eight orientations."""
        self._view = view
        if self._graph is None:
            threads, gpu, samples = self._world.threads, self._world.gpu, self._samples
            self._graph = Graph(
                self._feed,
                self._format,
                self._batch_size,
                threads,
                gpu,
                largest=samples.largest,
                masks=samples.has_masks,
            )
        else:
            self._graph.restart()
        yield from zip(_name_corrupt(self._graph, self._samples, _evaluation_error), self._plan, strict=True)

    def _feed(self, step: int) -> GraphInput | None:
        if step >= len(self._plan):
            return None
        samples = self._plan[step].samples
        encoded, masks = self._samples.encoded(samples), self._samples.masks(samples)
        return evaluation_input(encoded, self._format, self._view, self._samples.windows_of(samples), masks)


def split_mask(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split [b, 4, S, S] into images [b, 3, S, S], channels last, and masks [b, 1, S, S], both contiguous."""
    return batch[:, :3].contiguous(memory_format=torch.channels_last), batch[:, 3:].contiguous()


def label_patterns(targets: npt.NDArray[np.float32]) -> Indices:
    """Number the distinct rows of labels [n, L]. Unknown counts as a value of its own."""
    _, inverse = np.unique(np.nan_to_num(targets, nan=-1.0), axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64)


def _name_corrupt(
    graph: Graph, samples: Samples, error_of: Callable[[tuple[str, ...]], DataError]
) -> Iterator[torch.Tensor]:
    """Yield the batches of a graph. An error names all corrupt images at once."""
    try:
        yield from graph
    except (DataError, RuntimeError) as error:
        ids = samples.changed()
        if not ids and isinstance(error, RuntimeError) and not is_of_memory(error):
            ids = samples.undecodable()
        if not ids:
            raise
        raise error_of(ids) from error


def _training_error(ids: tuple[str, ...]) -> CorruptImages:
    return CorruptImages(
        f"{_describe_corrupt(ids)} Copy the data set again, or raise --max-corrupt-images to train without them.", ids
    )


def _evaluation_error(ids: tuple[str, ...]) -> DataError:
    return DataError(f"{_describe_corrupt(ids)} Cannot score unreadable images: copy the data set again.")


def _describe_corrupt(ids: tuple[str, ...]) -> str:
    few = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
    return f"{len(ids)} prepared images can no longer be decoded: {few}. The shards are corrupt."
