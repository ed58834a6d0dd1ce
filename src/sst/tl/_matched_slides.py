"""What remains of the groups' differences between slides that are alike in what has no biology in it."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from sst.metrics import over_donors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def matched_slides(
    technical: np.ndarray,
    measures: Mapping[str, np.ndarray],
    labels: np.ndarray,
    donors: np.ndarray,
    groups: Sequence[str],
) -> pd.DataFrame:
    """Gaps between groups over all slides, and over pairs of slides that are alike.

    Parameters
    ----------
    technical
        What slides are matched by, n cells x q.
    measures
        What the gap is of: name -> n values.
    labels, donors
        Group and slide (donor) of each cell.
    groups
        The groups.

    Returns
    -------
    One row a pair of groups and measure: ``source``, ``target``, ``measure``, ``gap`` (between the means of the groups' slides), ``gap_matched`` with ``low`` and
    ``high`` (mean of the pairs, Student's 95 % over pairs), ``remaining`` (their ratio), ``n_pairs``, ``matched_by``: ``"donor"`` where the same donors have cells of both
    groups, else ``"light and depth"``: pairs of the least total distance, of which those count that are no farther apart than the median of two slides of one group.
    """
    cells = pd.DataFrame({"group": labels, "donor": donors})
    means = pd.DataFrame(technical).groupby([cells["group"], cells["donor"]]).mean()
    of = pd.DataFrame({k: np.asarray(v, float) for k, v in measures.items()})
    values = of.groupby([cells["group"], cells["donor"]]).mean()
    inside = means - means.groupby(level="group").transform("mean")
    spread = np.sqrt((inside**2).sum() / max(len(means) - len(groups), 1)).replace(0, np.inf)
    scaled = means / spread / max(means.shape[1], 1) ** 0.5
    typical = np.concatenate([pdist(scaled.loc[g]) for g in groups])
    most = float(np.median(typical)) if len(typical) else 0.0
    rows = []
    for a, b in combinations(groups, 2):
        first, second = scaled.loc[a], scaled.loc[b]
        same = first.index.intersection(second.index)
        pairs = [(d, d) for d in same]
        if not pairs:
            apart = cdist(first, second)
            chosen = zip(*linear_sum_assignment(apart), strict=True)
            pairs = [(first.index[i], second.index[j]) for i, j in chosen if apart[i, j] <= most]
        for name in values:
            gap = float(values.loc[b, name].mean() - values.loc[a, name].mean())
            changes = np.array([values.loc[(b, t), name] - values.loc[(a, s), name] for s, t in pairs], dtype=float)
            found = over_donors(changes, [str(k) for k in range(len(pairs))])
            rows.append(
                {
                    "source": a,
                    "target": b,
                    "measure": name,
                    "gap": gap,
                    "gap_matched": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "remaining": found.mean / gap if gap else float("nan"),
                    "n_pairs": len(pairs),
                    "matched_by": "donor" if len(same) else "light and depth",
                }
            )
    return pd.DataFrame(rows, index=[str(k) for k in range(len(rows))])
