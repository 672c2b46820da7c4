"""The command `weights fetch`: published weights in a folder, for machines without a network."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from melanoma_dist import console
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.weights import CONFIG, FetchConfig
from melanoma_dist.models.backbones import build_trunk, published_input
from melanoma_dist.models.hub import write_trunk


def fetch(settings: FetchConfig) -> None:
    """Write a folder per backbone: config.json and model.safetensors, without the classifier.

    The weights pass through the model that timm builds, so that every machine reads the names of this version of timm.
    Raises ConfigError for weights that do not arrive. Backbones before it stay.
    """
    for name in settings.backbones:
        model = ModelConfig(name, "imagenet")
        folder = settings.out / model.backbone
        if (folder / CONFIG).is_file():
            console.info(f"{folder}: is there already")
            continue
        with console.phase(f"fetching {model.backbone}"):
            image_format = published_input(model.backbone)
            trunk = build_trunk(model, image_format.size)
            settings.out.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=settings.out, prefix=".") as place:  # a folder appears whole or not at all
                aside = Path(place, folder.name)
                aside.mkdir()
                write_trunk(trunk, aside, model.backbone, image_format)
                aside.rename(folder)
    console.places({"weights": settings.out})
    console.info(f"On a machine without a network: --weights {settings.out}, wherever you bring the folder.")
