"""What a comparison allows to say, in plain sentences, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.pages.numbers import signed

FIGURE = f"AUC of {HEADLINE}"


def verdict(comparison: dict[str, Any]) -> list[str]:
    """The sentences that come first: the highest AUC where there are more than two runs, then every pair."""
    pairs = comparison["pairs"]
    lead = [_leader(comparison)] if len(comparison["runs"]) > 2 else []
    told = [_sentence(pair, comparison) for pair in pairs]
    constant = [
        f"{run['name']} gives every image the same probability of {' and '.join(run['constant'])}: it has learnt "
        "nothing there."
        for run in comparison["runs"]
        if run["constant"]
    ]
    return [*lead, *told, *constant]


def limits(comparison: dict[str, Any]) -> list[str]:
    """What the sentences do not say."""
    holdout = comparison["holdout"]
    chosen = _of_holdout(comparison) if holdout else _OPTIMISTIC
    return [*chosen, _seeds(comparison["runs"]), _tested(comparison), _thresholds(comparison), *_of_cost(comparison)]


_OPTIMISTIC = [
    "All runs are measured on the same images in the same folds. Each fold kept the epoch of its highest validation "
    "AUC, so every figure here is optimistic, and one run's may be more so than another's; whoever chooses a run by "
    "this page and then cites its figure is optimistic once more. Only images that no fold has seen are free of this "
    "(`launch.py evaluate`, then `compare --holdout`).",
    "Intervals and p values come from the lesions: they say whether other lesions of the same kind could reverse a "
    "difference between these very models. They say nothing of another training; the interval over folds says a "
    "little.",
]


def _of_holdout(comparison: dict[str, Any]) -> list[str]:
    runs = comparison["runs"]
    compared = {(run["folder"], run["evaluation"]["number"]) for run in runs}
    looks = {(look["run"], look["number"]) for run in runs for look in run["earlier"]} - compared
    seen = (
        f"Earlier looks at the same images, besides those compared: {len(looks)}. Whoever chose anything by them has "
        "made the figures here optimistic; looks made elsewhere cannot be known."
        if looks
        else "No record in this folder of runs tells of another look; looks made elsewhere cannot be known."
    )
    return [
        f"Of each run the last finished look is compared: {'; '.join(_look(run) for run in runs)}.",
        f"Each run is its ensemble: the mean of the calibrated probabilities of its folds, on the images of "
        f"{comparison['holdout']}. {seen}",
        "Intervals and p values come from the lesions of these images: they say nothing of another training, nor of "
        "images from elsewhere.",
    ]


def _look(run: dict[str, Any]) -> str:
    """Which look of a run is compared: its number, date and tta."""
    look = run["evaluation"]
    return f"{run['name']}, look {look['number']} of {str(look['finished'])[:10]} with tta {look['tta']}"


def _leader(comparison: dict[str, Any]) -> str:
    runs = [run for run in comparison["runs"] if "not_defined" not in run["figures"][HEADLINE]["auc"]]
    if not runs:
        return f"No run has an {FIGURE}: {comparison['runs'][0]['figures'][HEADLINE]['auc']['not_defined']}"
    auc = {run["name"]: run["figures"][HEADLINE]["auc"] for run in runs}
    best = max(auc, key=lambda name: float(auc[name]["estimate"]))
    behind = [name for name in auc if _between(comparison, best, name, separated=True)]
    level = [name for name in auc if _between(comparison, best, name, separated=False)]
    found = auc[best]
    told = (
        f"Highest {FIGURE}: {best}, {found['estimate']:.3f} (95 % interval {found['low']:.3f} to {found['high']:.3f})."
    )
    if not behind:
        return f"{told} It is separated from none of the others: no run is shown to be the best."
    if not level:
        return f"{told} It is separated from every other run."
    return f"{told} It is separated from {_listed(behind)}, and not from {_listed(level)}."


def _between(comparison: dict[str, Any], one: str, other: str, separated: bool) -> bool:
    return any({pair["first"], pair["second"]} == {one, other} and pair["separated"] is separated
               for pair in comparison["pairs"])  # fmt: skip


def _sentence(pair: dict[str, Any], comparison: dict[str, Any]) -> str:
    """One pair."""
    first, second, found = pair["first"], pair["second"], pair["simultaneous"]
    where = f"on {comparison['holdout']}" if comparison["holdout"] else "on these folds"
    if "not_defined" in found:
        return f"{first} and {second} cannot be compared by {FIGURE}: {found['not_defined']}"
    if pair["same_models"]:
        return (
            f"{first} and {second} are the same models: one is a copy of the other, or both came to the same weights. "
            "There is nothing to compare."
        )
    if pair["identical"]:
        return f"{first} and {second} cannot be separated {where}: they predict the same for every image."
    evidence = _evidence(pair, len(comparison["pairs"]))
    if pair["separated"]:
        worse = second if pair["better"] == first else first
        told = (
            f"{_lead(pair, worse, comparison)}{pair['better']} is separated from {worse} {where}: its {FIGURE} is "
            f"{abs(found['estimate']):.3f} higher ({evidence})."
        )
    else:
        most = max(abs(found["low"]), abs(found["high"]))
        told = (
            f"{first} and {second} cannot be separated {where}: {FIGURE} differs by {abs(found['estimate']):.3f} "
            f"({evidence}). That does not show them equal: a difference of {most:.3f} would agree with these images "
            "too."
        )
    return f"{told} {_folds(pair)}".strip()


def _evidence(pair: dict[str, Any], pairs: int) -> str:
    """The interval, of the better run less the worse where they are separated, and the p value."""
    found, turned = pair["simultaneous"], pair["better"] == pair["second"]
    low, high = (-found["high"], -found["low"]) if turned else (found["low"], found["high"])
    whose = "" if pair["separated"] else f", {pair['first']} less {pair['second']}"
    interval = f"{'simultaneous ' if pairs > 1 else ''}95 % interval {signed(low)} to {signed(high)}{whose}"
    if pair["p_corrected"] is None:
        return f"{interval}; no test: {pair['delong'][HEADLINE]['not_defined'].rstrip('.')}"
    return f"{interval}; {'corrected ' if pairs > 1 else ''}p {p_value(pair['p_corrected'])}"


def _lead(pair: dict[str, Any], worse: str, comparison: dict[str, Any]) -> str:
    """What comes first where the lesions separate two runs, and the interval over folds does not confirm it."""
    if "not_defined" in pair["folds"] or _ends_over_folds(pair)[0] > 0:
        return ""
    backbones = {run["backbone"] for run in comparison["runs"] if run["name"] in (pair["better"], worse)}
    what = "the architectures" if len(backbones) > 1 else "the two ways of training"
    return f"Is {pair['better']} better than {worse}? For these very models: yes; for {what}: not shown. "


def _ends_over_folds(pair: dict[str, Any]) -> tuple[float, float]:
    """The ends of the interval over folds, of the better run less the worse where they are separated."""
    low, high = pair["folds"]["low"], pair["folds"]["high"]
    return (-high, -low) if pair["better"] == pair["second"] else (low, high)


def _folds(pair: dict[str, Any]) -> str:
    """Whether the interval over folds agrees."""
    found = pair["folds"]
    if "not_defined" in found:
        return ""
    low, high = _ends_over_folds(pair)
    interval = f"{signed(low)} to {signed(high)}"
    over = f"The interval over the {found['folds']} folds" + (
        f" and {found['seeds']} seeds" if found["seeds"] > 1 else ""
    )
    if pair["separated"] and low > 0:
        return f"{over} agrees ({interval})."
    if pair["separated"]:
        return f"{over} does not confirm it ({interval}): with other training images the difference may be gone."
    if low > 0 or high < 0:
        return f"{over} alone leaves out 0 ({interval}); the lesions do not, so nothing is claimed."
    return f"{over} agrees ({interval})."


def _seeds(runs: Sequence[dict[str, Any]]) -> str:
    repeats = [run["repeats"] or 1 for run in runs]
    seeds = _listed(sorted({str(run["seed"]) for run in runs}))
    if max(repeats) == 1:
        return (
            f"Each run is one training per fold, with one seed ({seeds}). "
            "Another seed can move an AUC as much as another backbone does; `--repeats` measures by how much."
        )
    trained = _listed([f"{run['name']} with {count}" for run, count in zip(runs, repeats, strict=True)])
    return (
        f"Seeds: {trained}. Figures and tests are of the first seed of each; the interval over folds is over all "
        "seeds, where two runs have the same."
    )


def _tested(comparison: dict[str, Any]) -> str:
    pairs = len(comparison["pairs"])
    corrected = f", over {pairs} pairs with Holm's correction" if pairs > 1 else ""
    return (
        f"One question was tested: {FIGURE}{corrected}; “separated” needs both a DeLong p below 0.05 and an interval "
        "of the paired bootstrap without 0. The intervals of all other figures are not corrected: among so many, some "
        "leave out 0 by chance."
    )


def _thresholds(comparison: dict[str, Any]) -> str:
    what = "Sensitivity, specificity and balanced accuracy are those of calls at"
    if comparison["holdout"]:
        return f"{what} the operating points that each run has frozen; specificity at sensitivity 0.90 is not."
    told = _listed(sorted({f"{run['thresholds'][HEADLINE]:g}" for run in comparison["runs"]}))
    return (
        f"{what} the raw probability {told}, where one run may call more images than another; AUC, average precision "
        "and specificity at sensitivity 0.90 depend on no threshold. The Brier score is of raw "
        "probabilities: runs that weight the classes differently in training differ in it for that alone."
    )


def _of_cost(comparison: dict[str, Any]) -> list[str]:
    devices = {run["cost"]["device"] for run in comparison["runs"]}
    machines = [key for key in comparison["differences"] if key.startswith("machine ")]
    if None in devices:
        return ["Not every run tells on what it was trained: costs are not comparable."]
    if len(devices) > 1 or machines:
        return ["The runs were trained on other machines or devices: their hours and speeds are not comparable."]
    return ["Hours and speeds are of the machine each run was trained on, and of whatever else worked there."]


def p_value(value: float) -> str:
    """A p value with two digits that count."""
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
