"""Several tests at once: p values that stay honest when the best of them is looked at."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p: Sequence[float]) -> list[float]:
    """Corrected p values in the order of the given ones (Holm 1979, "A simple sequentially rejective multiple test").

    The i-th smallest of m (from 0) is multiplied by m - i, never below the one before it and never above 1. So the
    chance that any true null hypothesis is rejected stays at the level, whatever the tests have to do with each other.
    """
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, highest = [0.0] * len(p), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[at]))
        corrected[at] = highest
    return corrected
