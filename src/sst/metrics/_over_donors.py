"""An effect over donors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from sst._arguments import checked
from sst._validate import check_range

if TYPE_CHECKING:
    from collections.abc import Sequence


class DonorEffect(NamedTuple):
    """An effect over donors.

    Attributes
    ----------
    mean
        Mean of the donors' means.
    low, high
        Its interval; NaN for one donor.
    p
        Two-sided, against 0; NaN for one donor.
    n_donors
        Donors with at least one finite value.
    each
        Each donor's mean (NaN: none of its values is finite).
    """

    mean: float
    low: float
    high: float
    p: float
    n_donors: int
    each: dict[str, float]


@checked
def over_donors(values: np.ndarray, donors: Sequence[str] | np.ndarray, *, level: float = 0.95) -> DonorEffect:
    """Mean effect over donors, each counting alike, with Student's interval over the donors' means.

    Cells of a donor are no independent trials of what holds of donors: three donors are three, however many cells they have.

    Parameters
    ----------
    values
        Effect on each cell, n; NaN are left out.
    donors
        Donor of each cell, n.
    level
        Coverage.

    Raises
    ------
    ValueError
        Lengths differ.
    """
    check_range("level", level, low=0.0, high=1.0, open_low=True)
    values, labels = np.asarray(values, dtype=float).ravel(), np.asarray(donors).astype(str).ravel()
    if values.shape != labels.shape:
        msg = f"donors: expected {len(values)} labels, one a cell, got {len(labels)}."
        raise ValueError(msg)
    names, code = np.unique(labels, return_inverse=True)
    fine = np.isfinite(values)
    count = np.bincount(code[fine], minlength=len(names))
    total = np.bincount(code[fine], weights=values[fine], minlength=len(names))
    means = np.divide(total, count, out=np.full(len(names), np.nan), where=count > 0)
    each = dict(zip(map(str, names), means.tolist(), strict=True))
    known = means[count > 0]
    n, nan = len(known), float("nan")
    if n == 0:
        return DonorEffect(nan, nan, nan, nan, 0, each)
    mean = float(known.mean())
    if n == 1:
        return DonorEffect(mean, nan, nan, nan, 1, each)
    error = float(known.std(ddof=1)) / n**0.5
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return DonorEffect(mean, mean - half, mean + half, p, n, each)
