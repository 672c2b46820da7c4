"""What Ray Tune's search-space functions say: the choices and ranges of fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search.sample import Categorical, Domain, Float, Function, Integer, LogUniform, Quantized


@dataclass(frozen=True)
class Scale:
    """The values that a field of a space can have."""

    choices: tuple[object, ...] = ()
    """In their order; none for a range."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """Of a range."""
    log: bool = False

    def position(self, value: Any) -> float:
        """Where a value lies: the number of a choice, or the number itself."""
        return self.choices.index(value) if self.choices else value

    def fraction(self, value: Any) -> float:
        """The share of the scale below a value, 0 to 1; on a logarithmic scale, of the logarithm."""
        low, high = (0, len(self.choices) - 1) if self.choices else self.bounds
        position = self.position(value)
        if self.log:
            low, high, position = math.log(low), math.log(high), math.log(position)
        return (position - low) / (high - low) if high > low else 0.5

    def value(self, fraction: float) -> Any:
        """The value at a share of the scale, 0 to 1. Of a range, the inverse of ``fraction``; choices share equally."""
        if self.choices:
            return self.choices[min(int(fraction * len(self.choices)), len(self.choices) - 1)]
        low, high = self.bounds
        return low * (high / low) ** fraction if self.log else low + (high - low) * fraction


def scales(domains: Mapping[str, object]) -> dict[str, Scale]:
    """The scale of each choice and range, by dotted field. Constants and functions have none."""
    return {key: scale for key, domain in domains.items() if (scale := _scale(domain)) is not None}


def _scale(domain: object) -> Scale | None:
    if isinstance(domain, dict):
        return Scale(choices=tuple(domain["grid_search"]))
    if isinstance(domain, Categorical):
        return Scale(choices=tuple(domain.categories))
    if isinstance(domain, Float | Integer):
        quantized = isinstance(domain.sampler, Quantized)
        sampler = domain.sampler.sampler if quantized else domain.sampler
        last = domain.upper - (isinstance(domain, Integer) and not quantized)
        return Scale(bounds=(domain.lower, last), log=isinstance(sampler, LogUniform))
    return None


def boundary_values(domain: object) -> Sequence[object]:
    """The values that stand for a domain: every category, or both bounds. Raises ValueError for other domains."""
    if isinstance(domain, Categorical) or (isinstance(domain, dict) and set(domain) == {"grid_search"}):
        values = list(domain.categories if isinstance(domain, Categorical) else domain["grid_search"])
        if not values:
            raise ValueError("has no values to choose from")
        return values
    if isinstance(domain, Integer):
        return int(domain.lower), int(domain.upper) - 1
    if isinstance(domain, Float):
        if any(bound is None or math.isinf(bound) for bound in (domain.lower, domain.upper)):
            raise ValueError("has no bounds; use tune.uniform or tune.loguniform")
        return float(domain.lower), float(domain.upper)
    if isinstance(domain, Function):  # its value is checked once it is drawn
        return ()
    if isinstance(domain, Domain | dict | list):
        raise ValueError("is not a supported search-space function (tune.choice, uniform, randint, ...)")
    return (domain,)  # a constant
