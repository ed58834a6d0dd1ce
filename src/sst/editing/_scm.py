"""Second-moment matching by eigenvectors (the paper's edit), made free of signs, order and ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from sst._arguments import checked

from ._matrix import BATCH_SIZE
from ._moments import Moments
from ._operators import LinearMap, check_pair, moments_of

SHIFT = 1e-8  # decides a rotation only where the data leave it open


@dataclass(frozen=True)
class SCM:
    r"""Rotate the source's eigenvectors into the target's and scale along the leading ones.

    With second-moment matrices :math:`C = O L O^\top` (eigenvalues descending) an edited cell is
    :math:`x O_i D Q O_j^\top`, where D scales component k by :math:`\sqrt{l_{j,k} / l_{i,k}}` for the ``top_k`` leading
    ones and by 1 for the rest (Wu and Koelzer 2024: ``top_k=1``). With ``top_k=None`` all are scaled and the edited
    source has exactly the target's second moments.

    Eigenvectors have no sign, and equal eigenvalues no order. The formula leaves open an orthogonal Q that mixes the
    components within each run of (nearly) equal eigenvalues: for a single component its sign. Here Q is the one that
    displaces the cells least, the orthogonal polar factor (Procrustes) of the run's
    :math:`L_i^{1/2} O_i^\top O_j L_j^{1/2}`; a single pair is turned so that its inner product is positive. Were all
    components one run, this would be the optimal-transport map (:class:`OT`). Where even this leaves a choice (orthogonal
    subspaces), fixed weights of the genes decide.

    Parameters
    ----------
    top_k
        Number of leading components to scale; ``None`` for all. A run of equal eigenvalues is never cut: it is scaled
        as a whole if it begins among the ``top_k``.
    tie
        Eigenvalues closer than ``tie`` times the largest count as equal.
    rank
        Directions in which the source has less than ``rank`` times its largest eigenvalue hold no cells; the full match
        leaves them empty.
    """

    top_k: int | None = 1
    tie: float = 1e-8
    rank: float = 1e-12

    def __post_init__(self) -> None:
        if self.top_k is not None and (int(self.top_k) != self.top_k or self.top_k < 0):
            msg = f"top_k={self.top_k!r}: expected a whole number >= 0, or None for all."
            raise ValueError(msg)

    def summarize(self, X: Any, *, batch_size: int = BATCH_SIZE) -> Moments:
        """Moments of a group."""
        return Moments.of(X, batch_size=batch_size)

    def fit(self, source: Any, target: Any) -> LinearMap:
        """Fit to two groups: matrices (cells x genes), or their :class:`Moments`."""
        first, second = moments_of(source, name="source"), moments_of(target, name="target")
        check_pair(first, second)
        return LinearMap(matching_map(first.second, second.second, top_k=self.top_k, tie=self.tie, rank=self.rank))


def check_square(source: np.ndarray, target: np.ndarray) -> None:
    """Raise ``ValueError`` unless both are finite p x p matrices."""
    if source.ndim != 2 or source.shape[0] != source.shape[1] or source.shape != target.shape or not source.size:
        msg = f"source and target are {source.shape} and {target.shape}: expected two p x p matrices of second moments."
        raise ValueError(msg)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        msg = "source and target: expected finite matrices."
        raise ValueError(msg)


def eigh_descending(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (p, descending, >= 0) and eigenvectors (p x p, columns) of a symmetric matrix."""
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    return np.maximum(values[::-1], 0.0), np.ascontiguousarray(vectors[:, ::-1])


@checked
def matching_map(
    source: np.ndarray, target: np.ndarray, *, top_k: int | None, tie: float = 1e-8, rank: float = 1e-12
) -> np.ndarray:
    """The p x p matrix M of :class:`SCM` from two second-moment matrices; cells are rows, edited by ``x @ M``."""
    check_square(source, target)
    li, oi = eigh_descending(source)
    lj, oj = eigh_descending(target)
    p = len(li)
    limit = p if top_k is None else top_k
    left, right = np.empty_like(oi), np.empty_like(oj)
    floor = rank * max(li[0], np.finfo(float).tiny)
    for low, high in runs(li, lj, tie):
        here = slice(low, high)
        scaled = low < limit
        filled = li[here] > floor
        ones = np.ones(high - low)
        if scaled:
            a, b = np.sqrt(li[here]), np.sqrt(lj[here])
            # a direction without source cells cannot be stretched into the target's: leave it empty
            before, after = np.where(filled, 1.0 / np.where(filled, a, 1.0), 0.0), b
        else:
            a, b = (li[here] if filled.all() else ones), ones
            before = after = ones
        turn = _turn(oi[:, here], oj[:, here], a, b)  # r x r
        left[:, here] = (oi[:, here] * before) @ turn
        right[:, here] = oj[:, here] * after
    return left @ right.T


def runs(first: np.ndarray, second: np.ndarray, tie: float) -> list[tuple[int, int]]:
    """Cut the components where the eigenvalues of both matrices step down by more than ``tie`` of the largest."""
    steps = (first[:-1] - first[1:] > tie * first[0]) & (second[:-1] - second[1:] > tie * second[0])
    cuts = np.concatenate([[0], np.flatnonzero(steps) + 1, [len(first)]])
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def _turn(oi: np.ndarray, oj: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Orthogonal Q (r x r) that makes x Oi diag(1/a) Q diag(b) Oj^T displace the cells of the source least."""
    agreement = (oi * a).T @ (oj * b)
    scale = a.max() * b.max()
    agreement = agreement / scale if scale > 0 else oi.T @ oj
    agreement += SHIFT * (_fixed_basis(oi).T @ _fixed_basis(oj))
    if agreement.size == 1:
        return np.where(agreement < 0, -1.0, 1.0)
    return polar(agreement)


def polar(matrix: np.ndarray) -> np.ndarray:
    """The (partial) isometry nearest to a matrix: U V^T of its singular value decomposition."""
    u, _, vt = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
    return u @ vt


def _fixed_basis(vectors: np.ndarray) -> np.ndarray:
    """Coordinates (r x r, orthogonal) of a basis of span(vectors) that does not depend on which vectors span it.

    The basis is the eigenvectors, within the span, of a diagonal matrix of fixed distinct weights; each is oriented to a
    positive sum with nearly equal weights. Written V for ``vectors`` (p x r) and E = V R for the basis, returns R^T.
    """
    p = len(vectors)
    uneven = np.modf((np.arange(p) + 1) * 0.6180339887498949)[0]  # distinct, equidistributed
    if vectors.shape[1] == 1:
        turn = np.ones((1, 1))
    else:
        _, turn = scipy.linalg.eigh(vectors.T @ ((1.0 + uneven)[:, None] * vectors), check_finite=False)
    signs = np.where((1.0 + 1e-3 * uneven) @ (vectors @ turn) < 0, -1.0, 1.0)
    return (turn * signs).T
