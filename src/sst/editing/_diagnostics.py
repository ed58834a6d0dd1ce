"""How far an edit hit: moments, and whether edited cells still look like cells."""

from __future__ import annotations

import numpy as np


def moment_error(X: np.ndarray, target: np.ndarray) -> float:
    """Relative error (Frobenius) of the second moments of ``X`` (n x k) against those of ``target`` (m x k or k x k)."""
    second = X.T @ X / len(X)
    wanted = target if target.shape[0] == target.shape[1] else target.T @ target / len(target)
    norm = np.linalg.norm(wanted)
    return float(np.linalg.norm(second - wanted) / norm) if norm else float(np.linalg.norm(second) > 0)


def manifold_distances(
    edited: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    *,
    n_pcs: int = 30,
    seed: int = 0,
) -> dict[str, float]:
    """Distance of edited cells to their nearest real target cell, against the distance between real target cells.

    In the space of the ``n_pcs`` leading principal components of log(1 + counts) of all real cells given. The target's cells
    are split at random: one half is the reference that everything is measured to, the other half gives the floor
    (real to real).

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
    ``distance_edited``, ``distance_source``, ``distance_floor``: median distances; ``distance_floor_95``: 95 % quantile of the
    floor; ``off_manifold``: share of the edited cells beyond it (0.05 for real cells).
    """
    from sklearn.neighbors import NearestNeighbors

    order = np.random.default_rng(seed).permutation(len(target))
    reference, held = target[order[::2]], target[order[1::2]]
    if len(held) == 0:
        nan = float("nan")
        return dict.fromkeys(
            ("distance_edited", "distance_source", "distance_floor", "distance_floor_95", "off_manifold"), nan
        )
    real = np.log1p(np.concatenate([source, target]).clip(min=0))
    mean = real.mean(axis=0)
    centred = real - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis = vectors[:, ::-1][:, : min(n_pcs, *real.shape)]

    def place(X: np.ndarray) -> np.ndarray:
        return (np.log1p(X.clip(min=0)) - mean) @ basis

    neighbours = NearestNeighbors(n_neighbors=1).fit(place(reference))
    nearest = {
        name: neighbours.kneighbors(place(X))[0].ravel()
        for name, X in (("edited", edited), ("source", source), ("floor", held))
    }
    limit = float(np.quantile(nearest["floor"], 0.95))
    return {
        "distance_edited": float(np.median(nearest["edited"])),
        "distance_source": float(np.median(nearest["source"])),
        "distance_floor": float(np.median(nearest["floor"])),
        "distance_floor_95": limit,
        "off_manifold": float(np.mean(nearest["edited"] > limit)),
    }
