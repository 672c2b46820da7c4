"""What metadata add to the image: out of fold, per source, and compared with what they say without an image.

Which fields are missing tells the archive of an image, and the archive tells much about its diagnosis. A gain over all
sources may therefore be the archive's, recognised. It counts where it also holds within sources. A model of the image
alone may recognise the archive too: for it, the facts that a photograph can show are tried as shortcuts.

Shapes: n images, X features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.metadata_use import MetadataUse, Shortcut, SourceAucs
from melanoma_dist.data.labels import TRUE
from melanoma_dist.data.metadata import metadata_codes
from melanoma_dist.data.tables import VOCABULARY
from melanoma_dist.errors import DataError
from melanoma_dist.metrics.delong import Aucs, delong
from melanoma_dist.metrics.intervals import Interval, Undefined

Floats = npt.NDArray[np.floating[Any]]
PREDICTS = 0.6
"""AUC from which facts without the image count as a shortcut."""
ALL = "all images"
_ARCHIVES = {"HAM": "HAM10000", "BCN": "BCN20000", "MSK": "MSK"}  # by the first letters of the lesion's id


def sources_of(about: pd.DataFrame) -> pd.Series[str]:
    """The source of each row of a manifest: the archive that its lesion's id names, else its collections."""
    archive = about["lesion_id"].astype("object").str[:3].map(_ARCHIVES)
    return archive.fillna(about["years"]).astype(str)


def metadata_use(
    table: pd.DataFrame, without: pd.DataFrame, about: pd.DataFrame, fields: tuple[str, ...], label: str
) -> MetadataUse:
    """Compute the use of metadata for one label.

    ``table`` has the out-of-fold predictions, ``without`` those of the same images with all fields unknown, ``about``
    the manifest's row of every image by id.
    """
    rows = about.loc[table["image_id"]].reset_index()
    truth, fold, group = (table[name].to_numpy() for name in (label + TRUE, "fold", "group"))
    codes, source = metadata_codes(rows, fields), sources_of(rows)
    informed, blank = table[label].to_numpy(dtype=float), without[label].to_numpy(dtype=float)
    alone = _out_of_fold(_features(codes, fields), truth, fold)
    sources = [(ALL, np.ones(len(table), dtype=bool))]
    if source.nunique() > 1:
        sources += [(name, (source == name).to_numpy()) for name in sorted(source.unique())]
    return MetadataUse(
        fields,
        label,
        tuple(_aucs(name, here, truth, np.stack([informed, blank, alone], axis=1), group) for name, here in sources),
        tuple(_shortcut(name, features, truth, fold, group) for name, features in _facts(codes, fields, source)),
    )


def shortcuts_in_images(table: pd.DataFrame, about: pd.DataFrame, label: str) -> MetadataUse | None:
    """Compute how well source and site, which a photograph may show, predict a label. None if all images share both.

    For a model that takes no metadata. ``table`` and ``about``: see `metadata_use`.
    """
    rows = about.loc[table["image_id"]].reset_index()
    truth, fold, group = (table[name].to_numpy() for name in (label + TRUE, "fold", "group"))
    facts = (_site(metadata_codes(rows, ("site",))), _source(sources_of(rows)))
    shortcuts = tuple(_shortcut(*each, truth, fold, group) for each in facts if _differs(each[1]))
    return MetadataUse((), label, (), shortcuts) if shortcuts else None


def _aucs(name: str, here: npt.NDArray[np.bool_], truth: Floats, scores: Floats, group: npt.NDArray[Any]) -> SourceAucs:
    """``scores`` [n, 3]: told, without, and of the metadata alone."""
    known = here & ~np.isnan(truth)
    images, positives = int(known.sum()), int((truth[known] == 1).sum())
    try:
        aucs = delong(truth[here], scores[here], group[here])
    except DataError as error:
        return SourceAucs(name, images, positives, *([Undefined(str(error))] * 4))
    change = aucs.difference(0, 1)
    difference = Interval(change.difference, change.low, change.high)
    informed, without, alone = (_interval(aucs, which) for which in range(3))
    return SourceAucs(name, images, positives, informed, without, difference, alone)


def _shortcut(name: str, features: Floats, truth: Floats, fold: npt.NDArray[Any], group: npt.NDArray[Any]) -> Shortcut:
    if not _differs(features):
        return Shortcut(name, Undefined("the same for all images"), warns=False)
    try:
        auc = _interval(delong(truth, _out_of_fold(features, truth, fold), group), 0)
    except DataError as error:
        return Shortcut(name, Undefined(str(error)), warns=False)
    return Shortcut(name, auc, auc.estimate >= PREDICTS)


def _interval(aucs: Aucs, which: int) -> Interval:
    return Interval(float(aucs.auc[which]), *aucs.interval(which))


def _facts(codes: Floats, fields: tuple[str, ...], source: pd.Series[str]) -> Iterator[tuple[str, Floats]]:
    """The facts to predict from, by name, as features [n, X]."""
    yield ", ".join(fields), _features(codes, fields)
    if "site" in fields and len(fields) > 1:
        at = fields.index("site")
        yield _site(codes[:, at : at + 1])
    yield "which of these are unknown", np.isnan(codes).astype(float)
    yield _source(source)


def _site(codes: Floats) -> tuple[str, Floats]:
    return "site", _features(codes, ("site",))


def _source(source: pd.Series[str]) -> tuple[str, Floats]:
    return "source", pd.get_dummies(source).to_numpy(dtype=float)


def _differs(features: Floats) -> bool:
    """Whether features [n, X] are not the same for all images."""
    return bool(np.ptp(features, axis=0).max(initial=0) > 0)


def _features(codes: Floats, fields: tuple[str, ...]) -> Floats:
    """Codes [n, F] as features: age and its square, a column for each word, and one for unknown."""
    columns = []
    for field, code in zip(fields, codes.T, strict=True):
        unknown = np.isnan(code)
        if field == "age":
            centred = np.where(unknown, 0.0, code / 100 - 0.5)
            columns += [centred, centred**2]
        else:
            columns += [code == word for word in range(len(VOCABULARY[field]))]
        columns.append(unknown)
    return np.stack(columns, axis=1).astype(float)


def _out_of_fold(features: Floats, truth: Floats, fold: npt.NDArray[Any]) -> Floats:
    """The probability [n] of each image by a logistic regression on the other folds."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    probability = np.full(len(truth), 0.5)
    known = ~np.isnan(truth)
    for own in np.unique(fold):
        others = (fold != own) & known
        if len(np.unique(truth[others])) == 2:
            model = LogisticRegression(max_iter=1000).fit(features[others], truth[others])
            probability[fold == own] = model.predict_proba(features[fold == own])[:, 1]
    return probability
