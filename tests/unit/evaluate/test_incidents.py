"""What went otherwise than asked for is told, of every seed, in the words that a report prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from melanoma_dist.artifacts.run_folder import RunFolder, trainings
from melanoma_dist.config.run import RunConfig
from melanoma_dist.evaluate.incidents import incidents

from ..samples import tiny

SMOOTH = {"best_epoch": 1, "seconds": 2.5, "device": "GPU", "devices": 1, "images_per_s": 40.0, "wait_share": 0.1,
          "skipped_steps": 0, "accumulate": 2}  # fmt: skip
ROUGH = [SMOOTH, {**SMOOTH, "skipped_steps": 3, "accumulate": 4}, {**SMOOTH, "skipped_steps": 1, "accumulate": 4}]


def trained(runs: Path, rough: tuple[int, int] | None) -> tuple[RunConfig, RunFolder]:
    """Two folds of two seeds, of which the ``rough`` (seed, fold) met something."""
    config = replace(tiny(folds=2, repeats=2, seed=5, accumulate=2), runs=runs)
    folder = RunFolder(runs / "run", {})
    for seeded, place in trainings(config, folder):
        for fold in range(2):
            epochs = ROUGH if (seeded.seed, fold) == rough else [SMOOTH] * 3
            (place / f"fold-{fold}").mkdir(parents=True)
            lines = [json.dumps({"epoch": number, **epoch}) + "\n" for number, epoch in enumerate(epochs, 1)]
            (place / f"fold-{fold}" / "metrics.jsonl").write_text("".join(lines))
    return config, folder


def test_a_smooth_run_has_none(tmp_path: Path) -> None:
    assert incidents(*trained(tmp_path, None)) == []


def test_every_incident_is_a_sentence(tmp_path: Path) -> None:
    config, folder = trained(tmp_path, (6, 1))
    conceded = json.dumps({"accumulate": 4, "corrupt": ["ISIC_0000003", "ISIC_0000007"]})
    (folder.path / "seed-6" / "fold-1" / "fallbacks.json").write_text(conceded)
    assert incidents(config, folder) == [
        "seed 6 fold 1 skipped steps whose gradient was not finite: 3 in epoch 2, 1 in epoch 3.",
        "seed 6 fold 1 computed each rank's share of a step in 4 micro-batches instead of 2 from epoch 2 on, for want "
        "of memory.",
        "seed 6 fold 1 did not learn from 2 damaged images: ISIC_0000003, ISIC_0000007.",
    ]


def test_those_of_the_first_seed_need_no_seed(tmp_path: Path) -> None:
    assert all(text.startswith("fold 0 ") for text in incidents(*trained(tmp_path, (5, 0))))
