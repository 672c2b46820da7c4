"""A collection that the package does not know: all that adding one takes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.raw_folder import RawFolder
from melanoma_dist.data.sources.coverage import coverage_gap
from melanoma_dist.data.sources.source import RECORD_COLUMNS, Collection, Source
from melanoma_dist.data.tables import IdColumn, Problems, read_labels, read_metadata


class Clinic:
    name, year, holdouts = "clinic", 2024, frozenset({"clinic-test"})

    def has_labels(self, raw: RawFolder) -> bool:
        return (raw.folder / "clinic/labels.csv").is_file()

    def cautions(self, collections: Sequence[Collection]) -> list[str]:
        return ["clinic: photographs of one camera."]

    def read(self, raw: RawFolder, selected: bool, problems: Problems) -> Collection:
        folder, ids = raw.folder / "clinic", IdColumn("photo", lambda text: text or None, "must not be empty")
        labels = read_labels(folder / "labels.csv", ids, ("melanoma", "nevus"), False, problems)
        about = read_metadata(folder / "patients.csv", ids, {"lesion_id": "lesion", "patient_id": "patient"}, problems)
        records = labels.merge(about, on="image_id", how="left")
        records[list(LABEL_COLUMNS)] = 0.0
        records["MEL"], records["NV"] = labels["melanoma"], labels["nevus"]
        records["split"] = pd.Series("train", index=records.index).mask(
            records["image_id"].str.startswith("test"), "clinic-test"
        )
        files = {path.stem: (path,) for path in sorted((folder / "photos").iterdir())}
        gap = coverage_gap(labels, about)
        records = records.reindex(columns=list(RECORD_COLUMNS))
        return Collection(self.name, records, files, selected=selected, gaps=(f"patients.csv: {gap}",) if gap else ())


SOURCE: Source = Clinic()
