"""The recipe `plain`: what a colleague writes in an afternoon with timm and torchvision alone.

Adam at one rate for all layers, one cycle, light augmentation by torchvision, no class weights, timm's own classifier,
the weights of the last epoch. ``_PEAK`` is the better of the rates that were tried (see RESULTS.md).
"""

from __future__ import annotations

import io

import numpy as np
import timm
import torch
from PIL import Image
from recipe_task import Floats, Task
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from melanoma_dist.data.shards import ShardReader

_PEAK = 1e-3
_BATCH = 32
_WORKERS = 2


class _Images(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images of rows of the manifest, transformed, with their targets."""

    def __init__(self, shards: ShardReader, rows: np.ndarray, targets: Floats, transform: v2.Transform) -> None:
        self._shards, self._rows, self._targets, self._transform = shards, rows, targets, transform

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture = Image.open(io.BytesIO(self._shards.jpeg(int(self._rows[index])).tobytes())).convert("RGB")
        return self._transform(picture), torch.from_numpy(self._targets[index])


def plain_script(task: Task) -> Floats:
    """Train on a task's images and predict the others, probabilities [n, L]."""
    torch.manual_seed(task.seed)
    model = timm.create_model(
        task.backbone, pretrained=True, pretrained_cfg_overlay={"file": str(task.weights)}, num_classes=len(task.labels)
    ).to(task.device)
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    training = v2.Compose(
        [
            v2.RandomResizedCrop(task.image_size, scale=(0.6, 1.0)), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(),
            v2.ColorJitter(0.1, 0.1, 0.1), *finish,
        ]
    )  # fmt: skip
    _train(model, task, _Images(task.shards, task.training, task.truth, training))
    unknown = np.zeros((len(task.predicted), len(task.labels)), dtype=np.float32)
    evaluation = v2.Compose([v2.Resize((task.image_size, task.image_size)), *finish])
    return _predict(model, task, _Images(task.shards, task.predicted, unknown, evaluation))


def _train(model: nn.Module, task: Task, images: _Images) -> None:
    loader = DataLoader(images, _BATCH, shuffle=True, num_workers=_WORKERS, persistent_workers=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=_PEAK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK, total_steps=task.epochs * len(loader))
    model.train()
    for _ in range(task.epochs):
        for pixels, targets in loader:
            known = ~targets.isnan()
            logits = model(pixels.to(task.device)).cpu()
            loss = nn.functional.binary_cross_entropy_with_logits(logits[known], targets[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _predict(model: nn.Module, task: Task, images: _Images) -> Floats:
    model.eval()
    with torch.inference_mode():
        batches = DataLoader(images, 64, num_workers=_WORKERS)
        return torch.cat([model(pixels.to(task.device)).sigmoid().cpu() for pixels, _ in batches]).numpy()
