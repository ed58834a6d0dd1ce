"""How far an edit hit: moments, and whether edited cells still look like cells."""

from __future__ import annotations

import numpy as np

from sst._arguments import checked

DISTANCES = (
    "distance_edited",
    "distance_source",
    "distance_floor",
    "distance_floor_95",
    "distance_data",
    "off_manifold",
    "off_data",
)


@checked
def moment_error(X: np.ndarray, target: np.ndarray) -> float:
    """Relative error (Frobenius) of the second moments of ``X`` (n x k) against those of ``target`` (m x k or k x k)."""
    if X.ndim != 2 or target.ndim != 2 or X.shape[1] != target.shape[1] or not len(X) or not len(target):
        msg = f"X is {X.shape}, target {target.shape}: expected cells x genes of the same genes (or genes x genes for target)."
        raise ValueError(msg)
    second = X.T @ X / len(X)
    wanted = target if target.shape[0] == target.shape[1] else target.T @ target / len(target)
    norm = np.linalg.norm(wanted)
    return float(np.linalg.norm(second - wanted) / norm) if norm else float(np.linalg.norm(second) > 0)


@checked
def manifold_distances(
    edited: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    *,
    n_pcs: int = 30,
    seed: int = 0,
) -> dict[str, float]:
    """Distance of edited cells to their nearest real target cell, against the distance between real target cells.

    In the space of the ``n_pcs`` leading principal components of log(1 + counts) of all real cells given. Each group is
    split at random: one half is the reference that everything is measured to, the other half is measured, so that no cell
    meets itself. Edits of few genes stay near the source by design: for them ``off_data`` is the one to look at.

    Parameters
    ----------
    edited, source, target
        Counts, cells x genes: edited cells, the same cells before, real cells of the target.
    n_pcs
        Number of components.
    seed
        Of the split.

    Returns
    -------
    ``distance_edited``, ``distance_source``: median distances to the nearest real target cell after and before the edit;
    ``distance_floor``, ``distance_floor_95``: median and 95 % quantile of real target cells' own; ``distance_data``: median
    distance of edited cells to the nearest real cell of either group; ``off_manifold``, ``off_data``: share of edited cells
    that lie farther from real target cells (from any real cell) than the 95 % quantile (0.05 for real target cells).
    """
    from sklearn.neighbors import NearestNeighbors

    genes = {part.shape[1:] for part in (edited, source, target)}
    if len(genes) > 1 or edited.shape != source.shape or source.ndim != 2 or not source.size or not target.size:
        msg = f"edited {edited.shape}, source {source.shape} and target {target.shape}: expected cells x genes of the same genes, edited cell by cell."
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    order, other = rng.permutation(len(target)), rng.permutation(len(source))
    reference, held = target[order[::2]], target[order[1::2]]
    near, moved = source[other[::2]], other[1::2] if len(other) > 1 else other
    if len(held) == 0:
        return dict.fromkeys(DISTANCES, float("nan"))
    real = np.log1p(np.concatenate([source, target]).clip(min=0))
    mean = real.mean(axis=0)
    centred = real - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis = vectors[:, ::-1][:, : min(n_pcs, *real.shape)]

    def place(X: np.ndarray) -> np.ndarray:
        return (np.log1p(X.clip(min=0)) - mean) @ basis

    def nearest(X: np.ndarray, to: NearestNeighbors) -> np.ndarray:
        return to.kneighbors(place(X))[0].ravel()

    targets = NearestNeighbors(n_neighbors=1).fit(place(reference))
    everything = NearestNeighbors(n_neighbors=1).fit(place(np.concatenate([reference, near])))
    floor = nearest(held, targets)
    limit = float(np.quantile(floor, 0.95))
    after, anywhere = nearest(edited[moved], targets), nearest(edited[moved], everything)
    found = (
        np.median(after),
        np.median(nearest(source[moved], targets)),
        np.median(floor),
        limit,
        np.median(anywhere),
        np.mean(after > limit),
        np.mean(anywhere > limit),
    )
    return {name: float(value) for name, value in zip(DISTANCES, found, strict=True)}
