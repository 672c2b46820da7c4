"""What a checkpoint costs beside a training on the GPU."""

from __future__ import annotations

from collections.abc import Iterator

from checkpoint import measure

from on_gpu.learning import as_in_a_run
from on_gpu.settings import Row, Settings

_BACKBONES = ("inceptionresnetv2", "densenet201")


def checkpoint(settings: Settings) -> Iterator[Row]:
    """Turns with a checkpoint and without, side by side."""
    world = as_in_a_run(settings)
    for backbone in _BACKBONES if settings.gpu is not None else ("test_resnet",):
        longest_s = settings.seconds / 4
        costs = measure(backbone, settings.batch_size, settings.size(backbone), world, rounds=3, longest_s=longest_s)
        without, with_one = costs.images_per_s
        about = f"{costs.parameters / 1e6:.1f} M parameters, {costs.size / 1e6:.0f} MB"
        yield Row(f"{backbone}, the training waits", f"{costs.copy_s:.3f} s", about)
        yield Row(f"{backbone}, then it is on the disk after", f"{costs.disk_s:.2f} s", "nothing else being done")
        yield Row(
            f"{backbone}, turns without and with one", f"{without:.1f} and {with_one:.1f} images/s",
            f"lost {costs.lost_s:.3f} s, median of 3 pairs",
        )  # fmt: skip
        yield Row(
            f"{backbone}, share of the time", f"{costs.share:.3%}",
            f"default interval, and one at the end of each epoch of {costs.epoch_s:.0f} s",
        )  # fmt: skip
