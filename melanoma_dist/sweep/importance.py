"""Estimate how much each searched field matters, by Optuna's fANOVA over the configurations of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.sweep.domains import Scale
from melanoma_dist.sweep.leaderboard import Entry

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 10
"""Configurations that an estimate needs: a forest of fewer says what chance said."""


def importances(entries: Sequence[Entry], scales: Mapping[str, Scale]) -> dict[str, float] | Undefined:
    """Return the share of the score's variance that each field explains, the largest first (they sum to 1).

    Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance". Only fields
    that every configuration sets take part; a field that is active in some of them alone does not.
    """
    import optuna

    in_order = sorted(entries, key=lambda entry: entry.configuration)  # the forest depends on it
    scored = [entry for entry in in_order if entry.mean_score is not None]
    fields = {key: scale for key, scale in scales.items() if all(key in entry.values for entry in scored)}
    if len(scored) < FEWEST:
        return Undefined(f"needs {FEWEST} configurations with a result, and here are {len(scored)}")
    if len({entry.mean_score for entry in scored}) == 1 or not fields:
        return Undefined("needs results that differ, and a field that every configuration sets")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {
        key: _distribution(scale, [entry.values[key] for entry in scored]) for key, scale in fields.items()
    }
    study = optuna.create_study(direction="maximize")
    for entry in scored:
        params = {key: scale.position(entry.values[key]) for key, scale in fields.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=entry.mean_score))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _distribution(scale: Scale, values: Sequence[Any]) -> BaseDistribution:
    """Return the distribution of a field. Steps may draw a value just outside of a range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if scale.choices:
        return CategoricalDistribution(range(len(scale.choices)))
    low, high = scale.bounds
    return FloatDistribution(min(low, *values), max(high, *values), log=scale.log)
