"""The part of an image that a classifier sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melanoma_dist.config.rules import between, expand_home
from melanoma_dist.errors import ConfigError

Region = Literal["whole", "lesion"]


@dataclass(frozen=True)
class RegionConfig:
    """The part of an image that a classifier sees."""

    region: Region = "whole"
    """whole (the whole image) or lesion (the lesion's box with a margin, made square; the whole image where no lesion
    was detected or its mask is doubtful)."""
    region_margin: float = 0.3
    """Margin on each side of the lesion's box, in shares of the box's own side, 0 to 2."""
    lesions: str | None = None
    """Folder of the lesions of the data set, from `segment apply`, for --region lesion. On a cluster, every node must
    reach it."""

    def __post_init__(self) -> None:
        between(self, "region_margin", 0.0, 2.0)
        expand_home(self, "lesions")
        if self.lesions is not None:
            # Workers may have another working folder.
            object.__setattr__(self, "lesions", str(Path(self.lesions).absolute()))
        elif self.region == "lesion":
            remedy = "Write it with `segment apply RUN --data DATA --out DIR`, and give --lesions DIR."
            raise ConfigError.of("region", self.region, "needs the table of the data set's lesions", remedy)


def check_lesions(section: RegionConfig) -> None:
    """Raise ConfigError for a table of lesions that is not there, or that no training would read."""
    if section.lesions is None:
        return
    if section.region == "whole":
        raise ConfigError.of("lesions", section.lesions, "is not read with --region whole", "Add --region lesion.")
    if not Path(section.lesions).is_dir():
        remedy = "`segment apply RUN --data DATA --out DIR` writes one."
        raise ConfigError.of("lesions", section.lesions, "there is no such folder", remedy)
