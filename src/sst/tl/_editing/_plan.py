"""Which cells an edit changes, toward what, and what it learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._validate import check_choice, check_groups, check_key, describe_options, resolve_subset
from sst.editing import METHODS

if TYPE_CHECKING:
    from anndata import AnnData

Subset = np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None


@dataclass(frozen=True)
class Direction:
    """Cells of one group on their way to another (no ``target``: an edit that needs none)."""

    source: str
    target: str | None
    cells: np.ndarray  # n booleans: edited
    fit_source: np.ndarray  # n booleans: learnt from
    fit_target: np.ndarray

    @property
    def name(self) -> str:
        """For messages and tables."""
        return self.source if self.target is None else f"{self.source} -> {self.target}"


def plan_directions(
    adata: AnnData,
    groupby: str | None,
    *,
    source: str | None,
    target: str | None,
    method: Any,
    subset: Subset,
    fit_on: str,
    fit_subset: Subset,
) -> list[Direction]:
    """Directions of an edit; errors name groups that are unknown, equal, empty or of one cell."""
    chosen = resolve_subset(adata, subset)
    check_choice("fit_on", fit_on, ["train", "all"])
    if isinstance(method, str) and method in METHODS and not METHODS[method].target:
        return [_prescribed(adata, groupby, source, target, method, chosen)]
    key = _keys.CONDITION if groupby is None else groupby
    groups = check_groups(adata, key)
    for name, group in (("source", source), ("target", target)):
        if group is not None:
            check_choice(name, group, groups)
    labels = adata.obs[key].astype(str).to_numpy()
    learn = resolve_subset(adata, fit_subset, name="fit_subset")
    if fit_on == "train" and _keys.SPLIT in adata.obs:
        learn = learn & (adata.obs[_keys.SPLIT].astype(str) == "train").to_numpy()
    directions = []
    for a, b in _pairs(groups, source, target, key):
        cells = chosen & (labels == a)
        if not cells.any():
            continue
        fit = {}
        for group in (a, b):
            fit[group] = learn & (labels == group)
            count = int(fit[group].sum())
            if count < 2:
                of = "training cells" if fit_on == "train" and _keys.SPLIT in adata.obs else "cells"
                msg = f"group {group!r} of obs[{key!r}] has {count} {of} to learn from: at least 2 are needed."
                raise ValueError(msg)
        directions.append(Direction(a, b, cells, fit[a], fit[b]))
    if not directions:
        msg = f"subset={subset!r} chooses no cell of {source if source is not None else groups!r} in obs[{key!r}]."
        raise ValueError(msg)
    return directions


def _pairs(groups: list[str], source: str | None, target: str | None, key: str) -> list[tuple[str, str]]:
    if source is not None and source == target:
        msg = f"source and target are both {source!r}: choose two groups. {describe_options(groups)}"
        raise ValueError(msg)
    if len(groups) < 2:
        msg = f"obs[{key!r}] has only the group {groups[0]!r}: an edit toward a group needs two."
        raise ValueError(msg)
    if target is None:
        if len(groups) > 2:
            msg = f"obs[{key!r}] has {len(groups)} groups: say which is the target=. {describe_options(groups)}"
            raise ValueError(msg)
        first, second = groups
        pairs = [(first, second), (second, first)]
        return pairs if source is None else [pair for pair in pairs if pair[0] == source]
    return [(group, target) for group in ([g for g in groups if g != target] if source is None else [source])]


def _prescribed(
    adata: AnnData, groupby: str | None, source: str | None, target: str | None, method: str, chosen: np.ndarray
) -> Direction:
    if target is not None:
        msg = f"target={target!r}: method={method!r} goes toward no group."
        raise ValueError(msg)
    if source is not None:
        key = _keys.CONDITION if groupby is None else groupby
        check_choice("source", source, check_groups(adata, key))
        chosen = chosen & (adata.obs[key].astype(str) == source).to_numpy()
        if not chosen.any():
            msg = f"subset chooses no cell of {source!r} in obs[{key!r}]."
            raise ValueError(msg)
    elif groupby is not None:
        check_key(adata, "obs", groupby, name="groupby")
    return Direction(source or "all", None, chosen, chosen, chosen)
