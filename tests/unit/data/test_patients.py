"""Patients never lie in two folds: on random tables with lesions, copies, and patients that some rows lack."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melanoma_dist.data.audit.checks import fold_checks, manifest_checks, require
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.groups import (
    BYTES,
    LESION,
    PATIENT,
    TRAIN,
    exclude_neighbours,
    group_images,
    join_same,
    name_by_lesion,
)
from melanoma_dist.data.labels import LABEL_COLUMNS, LABEL_SETS
from melanoma_dist.errors import ConfigError

KEYS = {"lesion_id": LESION, "patient_id": PATIENT, "source_sha256": BYTES}
TABLES = 200


def random_table(seed: int) -> pd.DataFrame:
    """20 to 80 images of few patients and lesions, which need not agree: a lesion may name two patients."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(20, 81))

    def names(prefix: str, share: float, blank: float) -> list[str | None]:
        numbers = rng.integers(0, max(2, int(count * share)), count)
        return [None if rng.random() < blank else f"{prefix}{number}" for number in numbers]

    kinds = rng.choice(["MEL", "NV", "BCC"], count)
    table = pd.DataFrame(
        {
            "image_id": [f"image-{number:03d}" for number in range(count)],
            "years": "own",
            "listed": "own-train",
            "split": TRAIN,
            "lesion_id": pd.Series(names("L", 1.5, 0.3), dtype="str"),
            "patient_id": pd.Series(names("P", 0.6, 0.2), dtype="str"),
            "source_sha256": [f"{number:064x}" for number in rng.integers(0, 20 * count, count)],
        }
    )
    held_out = rng.random(count) < 0.03
    table["split"] = table["split"].mask(held_out, "own-test")
    table["listed"] = table["listed"].mask(held_out, "own-test")
    for label in LABEL_COLUMNS:
        table[label] = (kinds == label).astype("float32")
    return table


@settings(max_examples=TABLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_no_patient_lies_in_two_folds_or_in_a_fold_and_a_holdout(seed: int, count: int) -> None:
    table = random_table(seed)
    joins = pd.concat([join_same(table, key, reason) for key, reason in KEYS.items()]).assign(joined=True)
    table["group"] = name_by_lesion(group_images(table["image_id"], joins), table["lesion_id"])
    table["split"] = exclude_neighbours(table)
    require(manifest_checks(table, joins))
    try:
        folds = make_folds(table, LABEL_SETS["melanoma"], count, seed % 100)
    except ConfigError:  # too few groups
        return
    require(fold_checks(table, folds, count))
    of_patient = table.dropna(subset="patient_id").merge(folds[["image_id", "fold"]], on="image_id", how="left")
    assert (of_patient.groupby("patient_id")["fold"].nunique() > 1).sum() == 0
    trained = set(of_patient.loc[of_patient["fold"].notna(), "patient_id"])
    assert not trained & set(of_patient.loc[of_patient["split"] == "own-test", "patient_id"])


def test_most_of_the_random_tables_have_folds_and_lesions_of_their_patients() -> None:
    """Otherwise the test above proves nothing."""
    tables = [random_table(seed) for seed in range(50)]
    assert min(table["patient_id"].nunique() for table in tables) > 5
    several = [table.groupby("patient_id")["lesion_id"].nunique().max() for table in tables]
    assert min(several) > 1


def test_the_audit_names_a_patient_in_two_folds_whatever_the_groups_say() -> None:
    table = random_table(0).assign(split=TRAIN).dropna(subset="patient_id")
    table["group"] = table["image_id"]
    folds = pd.DataFrame({"image_id": table["image_id"], "group": table["group"], "fold": np.arange(len(table)) % 2})
    [failed] = [check for check in fold_checks(table, folds, 2) if not check.passed]
    assert failed.name == "no patient lies in two folds"
    assert "patients lie in two folds: P" in failed.failures[0]
