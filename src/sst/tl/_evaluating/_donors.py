"""What an evaluation says of donors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from sst.editing import bootstrap_mean
from sst.metrics import over_donors

if TYPE_CHECKING:
    import pandas as pd


def change_row(
    change: np.ndarray, fields: np.ndarray, donors: np.ndarray | None, *, level: float, seed: int
) -> dict[str, Any]:
    """Mean change of some cells, its interval and P: over donors where they are known, else over fields of view (or cells of a single one)."""
    if donors is not None:
        found = over_donors(change, donors, level=level)
        row = {"change": found.mean, "change_low": found.low, "change_high": found.high, "p": found.p}
        return row | {"n_fields": len(np.unique(fields[np.isfinite(change)].astype(str))), "n_donors": found.n_donors}
    interval = bootstrap_mean(change, fields, level=level, n_resamples=500, seed=seed)
    low, high = interval.low_clusters, interval.high_clusters
    if np.isnan(low):
        low, high = interval.low, interval.high
    p, n_fields = over_fields(change, fields)
    return {"change": interval.mean, "change_low": low, "change_high": high, "p": p, "n_fields": n_fields}


def gap_row(source: pd.Series, target: pd.Series, donors: np.ndarray | None, *, level: float) -> dict[str, float]:
    """Means of both groups' real cells (indexed by row) and their gap; of donors, with Welch's interval."""
    if donors is None:
        a, b = float(source.mean()), float(target.mean())
        return {"real_source": a, "real_target": b, "gap": b - a}
    first, second = (over_donors(s.to_numpy(float), donors[s.index.to_numpy()]) for s in (source, target))
    gap, half = second.mean - first.mean, float("nan")
    if min(first.n_donors, second.n_donors) > 1:
        means = [np.array([m for m in e.each.values() if np.isfinite(m)]) for e in (first, second)]
        parts = [m.var(ddof=1) / len(m) for m in means]
        error = sum(parts)
        freedom = error**2 / max(sum(v**2 / (len(m) - 1) for v, m in zip(parts, means, strict=True)), 1e-300)
        half = float(stats.t.ppf((1 + level) / 2, max(freedom, 1.0)) * error**0.5)
    return {
        "real_source": first.mean, "real_target": second.mean, "gap": gap, "gap_low": gap - half, "gap_high": gap + half,
    }  # fmt: skip


def donor_rows(change: np.ndarray, donors: np.ndarray) -> list[dict[str, Any]]:
    """Each donor's mean change, and its cells."""
    size = dict(zip(*np.unique(donors[np.isfinite(change)], return_counts=True), strict=True))
    each = over_donors(change, donors).each
    return [{"donor": name, "change": mean, "n": int(size.get(name, 0))} for name, mean in each.items()]


def over_fields(values: np.ndarray, fields: np.ndarray) -> tuple[float, int]:
    """Two-sided P of the fields' means against 0 (NaN under three fields, 1 where nothing changes), and the number of fields."""
    fine = np.isfinite(values)
    names, where = np.unique(fields[fine].astype(str), return_inverse=True)
    if len(names) < 3:
        return float("nan"), len(names)
    means = np.bincount(where, weights=values[fine]) / np.bincount(where)
    return (1.0 if not np.ptp(means) and not means[0] else float(stats.ttest_1samp(means, 0).pvalue)), len(names)
