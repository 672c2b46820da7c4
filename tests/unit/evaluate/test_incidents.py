"""What went otherwise than asked for is told, of every seed, in the words that a report prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from melanoma_dist.artifacts.epochs import write_epochs
from melanoma_dist.artifacts.run_folder import RunFolder, trainings
from melanoma_dist.config.run import RunConfig
from melanoma_dist.evaluate.incidents import incidents

from ..samples import EPOCH, tiny

SMOOTH = replace(EPOCH, accumulate=2)
ROUGH = [SMOOTH, replace(SMOOTH, skipped_steps=3, accumulate=4), replace(SMOOTH, skipped_steps=1, accumulate=4)]


def trained(runs: Path, rough: tuple[int, int] | None) -> tuple[RunConfig, RunFolder]:
    """Two folds of two seeds, of which the ``rough`` (seed, fold) met something."""
    config = replace(tiny(folds=2, repeats=2, seed=5, accumulate=2), runs=runs)
    folder = RunFolder(runs / "run", {})
    for seeded, place in trainings(config, folder):
        for fold in range(2):
            epochs = ROUGH if (seeded.seed, fold) == rough else [SMOOTH] * 3
            (place / f"fold-{fold}").mkdir(parents=True)
            write_epochs(place / f"fold-{fold}", [replace(each, epoch=number) for number, each in enumerate(epochs, 1)])
    return config, folder


def test_a_smooth_run_has_none(tmp_path: Path) -> None:
    assert incidents(*trained(tmp_path, None)) == []


def test_every_incident_is_a_sentence(tmp_path: Path) -> None:
    config, folder = trained(tmp_path, (6, 1))
    fallbacks = json.dumps({"accumulate": 4, "corrupt": ["ISIC_0000003", "ISIC_0000007"]})
    (folder.path / "seed-6" / "fold-1" / "fallbacks.json").write_text(fallbacks)
    assert incidents(config, folder) == [
        "seed 6 fold 1 skipped steps whose gradient was not finite: 3 in epoch 2, 1 in epoch 3.",
        "seed 6 fold 1 computed each rank's share of a step in 4 micro-batches instead of 2 from epoch 2 on, for want "
        "of memory.",
        "seed 6 fold 1 did not train on 2 corrupt images: ISIC_0000003, ISIC_0000007.",
    ]


def test_those_of_the_first_seed_need_no_seed(tmp_path: Path) -> None:
    assert all(text.startswith("fold 0 ") for text in incidents(*trained(tmp_path, (5, 0))))
