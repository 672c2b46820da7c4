"""Whether the folds of a run would have gone on learning."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_dist.artifacts.epochs import EpochRecord


def under_trained(folds: Sequence[Sequence[EpochRecord]], epochs: int) -> tuple[str, ...]:
    """Return advice, if every fold trained all ``epochs`` and its last had the lowest validation loss; else nothing.

    A training that is long enough ends after that loss has begun to rise: the model then fits its own images better and
    others worse. The AUC does not tell, because most schedules raise it to the end.
    """
    ended = all(len(fold) == epochs > 1 for fold in folds)
    if not ended or any(min(fold, key=lambda each: each.validation_loss) is not fold[-1] for fold in folds):
        return ()
    return (
        "the validation loss of every fold was still falling in its last epoch: a longer training, such as "
        f"--epochs {2 * epochs}, may predict better.",
    )
