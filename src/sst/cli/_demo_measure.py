"""The demo's numbers, all on held-out cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._keys import column_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._demo_input import DemoInput

FEATURES = ("marker", "nucleus_area")


def measure(data: DemoInput, *, edits: Mapping[str, str], truths: Mapping[str, Mapping[str, np.ndarray]]) -> dict:
    """Of the generator: gap closed, truth recovered and fidelity to genes.

    Parameters
    ----------
    data
        Its ``adata`` has been edited and measured (``sst.tl.morphology``) for ``"crops"``, ``"generated"`` and each edit.
    edits
        Name of the edit -> its key.
    truths
        From :func:`true_images`; may be empty.

    Returns
    -------
    ``gap_closed[edit][direction][feature]``: (mean after - mean before) / (mean of the target's real cells - mean of
    the source's); ``truth_recovered["chosen"]``: the same change / the change of the true counterfactual, where it is
    known; ``fidelity["real"|"generated"][feature]``: Spearman correlation of a driving gene with its feature within a
    group, averaged over groups and genes; ``effects``: the means behind them; ``n_test``: held-out cells of a group.
    """
    frames = {key: features(data, key) for key in ("crops", "generated", *edits.values())}
    result: dict = {"gap_closed": {name: {} for name in edits}, "truth_recovered": {"chosen": {}}, "effects": []}
    for source, target in (data.groups, data.groups[::-1]):
        direction = f"{source}->{target}"
        cells, others = _test(data, source), _test(data, target)
        true = _true_change(data, frames["crops"].loc[cells], truths, source)
        for feature in FEATURES:
            real = {g: _mean(frames["crops"].loc[m, feature]) for g, m in ((source, cells), (target, others))}
            gap = real[target] - real[source]
            for name, key in edits.items():
                change = _change(frames["generated"].loc[cells, feature], frames[key].loc[cells, feature])
                result["gap_closed"][name].setdefault(direction, {})[feature] = _ratio(change, gap)
                row = {"edit": name, "direction": direction, "feature": feature, "change": change, "gap": gap}
                if name == "chosen" and true is not None:
                    share = _ratio(change, true[feature])
                    result["truth_recovered"][name].setdefault(direction, {})[feature] = share
                    row["true_change"] = true[feature]
                result["effects"].append(row)
    result["fidelity"], result["fidelity_by_group"] = _fidelity(data, frames)
    result["n_test"] = {g: int(_test(data, g).sum()) for g in data.groups}
    if not truths:
        del result["truth_recovered"]
    return result


def features(data: DemoInput, key: str) -> pd.DataFrame:
    """``marker`` and ``nucleus_area`` of every cell's image under ``key``, from the slots of ``sst.tl.morphology``."""
    obs = data.adata.obs
    columns = {"marker": f"{key}_{column_name(data.marker)}_window_mean", "nucleus_area": f"{key}_nucleus_area"}
    return pd.DataFrame({name: obs[column].to_numpy(dtype=float) for name, column in columns.items()})


def _test(data: DemoInput, group: str) -> np.ndarray:
    obs = data.adata.obs
    return ((obs[data.groupby] == group) & (obs["split"] == "test")).to_numpy()


def _mean(values: pd.Series) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _change(before: pd.Series, after: pd.Series) -> float:
    both = np.isfinite(before.to_numpy()) & np.isfinite(after.to_numpy())
    return float((after.to_numpy() - before.to_numpy())[both].mean()) if both.any() else float("nan")


def _ratio(change: float, whole: float) -> float | None:
    return round(change / whole, 4) if np.isfinite(change) and np.isfinite(whole) and whole != 0 else None


def true_images(data: DemoInput, genes: Mapping[str, Sequence[str] | None]) -> dict[str, dict[str, np.ndarray]]:
    """True counterfactuals of the held-out cells: ``[edit][source]``; empty for measured tissue."""
    if data.truth is None:
        return {}
    directions = (data.groups, data.groups[::-1])
    return {name: {s: data.truth(s, t, wanted) for s, t in directions} for name, wanted in genes.items()}


def _true_change(
    data: DemoInput, real: pd.DataFrame, truths: Mapping[str, Mapping[str, np.ndarray]], source: str
) -> dict[str, float] | None:
    """Change of the mean features from the held-out cells to their true counterfactuals, measured alike."""
    if not truths:
        return None
    import sst

    channels = [str(c) for c in data.adata.uns["crops"]["channels"]]
    table = sst.metrics.nucleus_features(
        truths["chosen"][source],
        nucleus_channel=channels.index(data.nucleus),
        channels=channels,
        pixel_size=float(data.adata.uns["crops"]["pixel_size"]),
    )
    true = {"marker": table[f"{column_name(data.marker)}_window_mean"], "nucleus_area": table["nucleus_area"]}
    return {feature: _change(real[feature], true[feature]) for feature in FEATURES}


def _fidelity(data: DemoInput, frames: Mapping[str, pd.DataFrame]) -> tuple[dict, list[dict]]:
    from scipy.stats import spearmanr

    adata, rows = data.adata, []
    for feature, genes in data.drivers.items():
        for gene in genes:
            counts = np.asarray(adata[:, gene].X.todense()).ravel()
            for group in data.groups:
                cells = _test(data, group)
                for kind, key in (("real", "crops"), ("generated", "generated")):
                    values = frames[key].loc[cells, feature].to_numpy()
                    fine = np.isfinite(values)
                    enough = fine.sum() > 2 and np.ptp(values[fine]) > 0 and np.ptp(counts[cells][fine]) > 0
                    rho = spearmanr(counts[cells][fine], values[fine]).statistic if enough else np.nan
                    rows.append({"feature": feature, "gene": gene, "group": group, "kind": kind, "rho": float(rho)})
    table = pd.DataFrame(rows)
    mean = table.groupby(["kind", "feature"])["rho"].mean()
    summary = {
        kind: {f: None if np.isnan(mean[kind, f]) else round(float(mean[kind, f]), 4) for f in FEATURES}
        for kind in ("real", "generated")
    }
    return summary, table.round(4).where(table.notna(), None).to_dict("records")
