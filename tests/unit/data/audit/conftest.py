"""A data set with copies, look-alikes and an unreadable file, and its inspection."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.cli import main
from melanoma_dist.config.data import AuditConfig
from melanoma_dist.data.audit.inspection import Inspection, inspect
from melanoma_dist.data.groups import NEAR
from melanoma_dist.data.manifest import JOINS
from melanoma_dist.data.prepare import Request as Preparation
from melanoma_dist.data.prepare import prepare

from ..conftest import Raw, rewrite, write_image

LESION = "<script>alert('x')</script>"
REJECTED = ("ISIC_0000003", "ISIC_0000008")


VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The page as a browser parses it: balanced elements, sources of images, links, text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.articles: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "article":
            self.articles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "article" in self.open:
            self.articles[-1] += data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty lesions; one file under two names, one image saved twice, a rejected pair, a lesion of two images."""
    folder = tmp_path_factory.mktemp("audit")
    raw = Raw(folder / "raw")
    for number in range(40):
        label = ("MEL", "NV", "BKL", "SCC", "BCC", "AK", "DF", "VASC")[number % 8]
        lesion = LESION if number in (1, 9) else f"LESION_{number}"
        raw.image_2019(number, label, lesion=lesion, size=(300, 200) if number % 2 else (120, 160))
    photographs = raw.folder / "2019" / "ISIC_2019_Training_Input"
    for number, quality in ((40, None), (41, 60)):
        raw.image_2019(number, "NV", lesion=f"LESION_{number}")
        target = photographs / f"ISIC_{number:07d}.jpg"
        if quality is None:
            shutil.copy(photographs / "ISIC_0000017.jpg", target)
        else:
            write_image(target, 25, (300, 200), quality=quality)
    (photographs / "ISIC_0000039.jpg").write_bytes(b"no image")
    prepare(Preparation(raw.folder, ("2019",)), folder / "prepared")
    joins = pd.read_parquet(folder / "prepared" / JOINS)
    evidence = "16 of 256 bits differ, details correlate at 0.512"
    joins.loc[len(joins)] = [*REJECTED, NEAR, evidence, False]
    rewrite(folder / "prepared", JOINS, joins)
    return folder / "prepared"


@pytest.fixture(scope="module")
def inspection(data: Path) -> Inspection:
    return inspect(AuditConfig(str(data), "isic2019", folds=2))


def audit(*flags: object) -> int:
    return main(["data", "audit", *(str(flag) for flag in flags)])
