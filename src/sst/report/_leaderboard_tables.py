"""The tables of a benchmark, as its page and its text show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from sst.tl import Benchmark


def leaderboard_tables(found: Benchmark) -> dict[str, pd.DataFrame]:
    """A benchmark's tables by caption; a line a method, except for the intervals.

    Parameters
    ----------
    found
        From :func:`sst.tl.benchmark`.

    Returns
    -------
    The leaderboard; shares of the true effect with their intervals, a column a method; correlation over cells and PSNR to the true
    counterfactuals by gene set; what genes that cause nothing do, feature by feature.
    """
    rows = found.rows.assign(method=_names(found.rows))
    order = list(dict.fromkeys(rows["method"]))
    causal = [name for name in found.pictures if name not in found.controls]
    top = rows[rows["feature"] == rows["genes"].map(found.features)]

    def by_set(values: pd.DataFrame, column: str, names: list[str]) -> pd.DataFrame:
        table = values.pivot_table(index="method", columns="genes", values=column, dropna=False)
        return table.reindex(index=order, columns=names).dropna(how="all").reset_index().rename_axis(columns=None)

    board = found.leaderboard.assign(method=_names(found.leaderboard)).drop(columns=["latent", "psnr_no_edit"])
    if "causal" in causal and "psnr" in rows:
        pictures = by_set(rows, "psnr", ["causal"]).set_index("method")["causal"]
        board.insert(board.columns.get_loc("psnr") + 1, "psnr_causal", board["method"].map(pictures))
    tables = {
        "Leaderboard": board,
        "Share of the true effect, with intervals over fields of view and seeds": _intervals(top, causal, order),
        "Correlation over cells with the true change": by_set(top[top["method"] != order[0]], "r", causal),
    }
    if "psnr" in rows:
        decibels = by_set(rows, "psnr", list(found.pictures)).set_index("method")
        tables["Pictures: PSNR to the true counterfactual, dB"] = decibels.add_prefix("psnr ").reset_index()
    null = rows[rows["genes"].isin(found.controls) & rows["feature"].isin({found.features[name] for name in causal})]
    null = null[null["gap"].abs() > found.least_gap * null["sd"]]
    if len(null):
        named = null.assign(genes=null["genes"] + ": " + null["feature"])
        columns = sorted(dict.fromkeys(named["genes"]), key=lambda name: found.controls.index(name.split(":")[0]))
        tables["Genes that cause nothing: share of the gap between the groups"] = by_set(named, "of_gap", columns)
    return tables


def _names(rows: pd.DataFrame) -> list[str]:
    """A method as tables call it."""
    return [
        f"{method.replace('_', ' ')}{', latent' if latent else ''}"
        for method, latent in zip(rows["method"], rows["latent"], strict=True)
    ]


def _intervals(top: pd.DataFrame, causal: list[str], order: list[str]) -> pd.DataFrame:
    """A line a gene set and direction, a column a method that edits."""
    lines: list[dict[str, Any]] = []
    for name in causal:
        for (source, target), part in top[top["genes"] == name].groupby(["source", "target"], sort=False):
            size = abs(float(part["true_change"].iloc[0] / part["sd"].iloc[0]))
            line = {"genes": f"{name} ({part['feature'].iloc[0]}, {size:.2f} SD)", "direction": f"{source} to {target}"}
            known = part.dropna(subset="share").set_index("method")
            line |= {
                method: "{:.2f} ({:.2f}, {:.2f})".format(*(row.round(2) + 0.0))
                for method, row in known[["share", "share_low", "share_high"]].iterrows()
            }
            lines.append(line)
    return pd.DataFrame(lines).reindex(columns=["genes", "direction", *order[1:]]).fillna("")
