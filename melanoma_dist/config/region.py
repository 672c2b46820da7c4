"""What a classifier sees of an image: all of it or its lesion, and beside the pixels the lesion's mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melanoma_dist.config.rules import between, expand_home
from melanoma_dist.errors import ConfigError

Region = Literal["whole", "lesion"]
MaskInput = Literal["none", "channel"]


@dataclass(frozen=True)
class RegionConfig:
    """What a classifier sees of an image."""

    region: Region = "whole"
    """whole (the whole image) or lesion (the lesion's box with a margin, made square; the whole image where no lesion
    was detected or its mask is doubtful)."""
    region_margin: float = 0.3
    """Margin on each side of the lesion's box, in shares of the box's own side, 0 to 2."""
    mask: MaskInput = "none"
    """none, or channel (the lesion's mask as a fourth channel of the image; empty where no lesion was detected or its
    mask is doubtful)."""
    lesions: str | None = None
    """Folder of the lesions of the data set, from `segment apply`, for --region lesion and --mask channel. On a
    cluster, every node must reach it."""

    def __post_init__(self) -> None:
        between(self, "region_margin", 0.0, 2.0)
        expand_home(self, "lesions")
        if self.lesions is not None:
            # Workers may have another working folder.
            object.__setattr__(self, "lesions", str(Path(self.lesions).absolute()))
        elif self.needs_lesions:
            remedy = "Write it with `segment apply RUN --data DATA --out DIR`, and give --lesions DIR."
            name, value = ("region", self.region) if self.region == "lesion" else ("mask", self.mask)
            raise ConfigError.of(name, value, "needs the table of the data set's lesions", remedy)

    @property
    def needs_lesions(self) -> bool:
        """Whether the classifier sees lesions: by their box, their mask or both."""
        return self.region == "lesion" or self.mask == "channel"

    @property
    def flags(self) -> str:
        """The flags by which it sees lesions."""
        boxes, masks = self.region == "lesion", self.mask == "channel"
        return " ".join(["--region lesion"] * boxes + ["--mask channel"] * masks)

    @property
    def channels(self) -> int:
        """Channels of the network's input: red, green, blue, and the mask."""
        return 4 if self.mask == "channel" else 3


def check_lesions(section: RegionConfig) -> None:
    """Raise ConfigError for a table of lesions that is not there, or that no training would read."""
    if section.lesions is None:
        return
    if not section.needs_lesions:
        remedy = "Add --region lesion or --mask channel."
        raise ConfigError.of("lesions", section.lesions, "is not read with --region whole --mask none", remedy)
    if not Path(section.lesions).is_dir():
        remedy = "`segment apply RUN --data DATA --out DIR` writes one."
        raise ConfigError.of("lesions", section.lesions, "there is no such folder", remedy)
