"""Which genes act on a trait, and how much: sparse regression with errors in the variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from sst._arguments import checked
from sst._validate import check_range

if TYPE_CHECKING:
    from ._latent import LatentExpression

_FOLDS = 5
_PENALTIES = np.geomspace(1.0, 0.02, 20)  # of the smallest that leaves no gene
_STEPS = 200


@checked
def sparse_effects(
    t: np.ndarray, traits: np.ndarray, latent: LatentExpression, *, level: float = 0.05, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of traits on the latent expression of the few genes that the cells show to act on them.

    A gene that goes with a causal one tells something of it as long as the causal gene's own counts are noisy, and a regression on counts
    gives it a slope for that. Here the noise is taken off the genes' covariance (:class:`LatentExpression`), a lasso finds the genes that act, its penalty
    chosen by cross-validation (the largest within one standard error of the best), and least squares on these genes alone, noise taken off again,
    gives their slopes; genes whose slopes chance could explain are left out one after another.

    Parameters
    ----------
    t
        Standardised log counts, n x p, less the mean of their slides.
    traits
        n x k, less the mean of their slides, each with standard deviation 1.
    latent
        Learnt from the same counts, within slides (``between=False``).
    level
        Chance, over all genes and traits together, that a gene which does nothing stays (Bonferroni).
    seed
        Of the folds.

    Returns
    -------
    Slopes p x k per standard deviation of log counts, 0 for most genes; and their z values.

    Raises
    ------
    ValueError
        ``t``, ``traits`` and ``latent`` are not of the same cells and genes.

    Notes
    -----
    Corrected scores: Loh and Wainwright (2012), *High-dimensional regression with noisy and missing data*; standard errors by the sandwich of the
    corrected estimating equation, cells taken for independent.
    """
    check_range("level", level, low=0, high=1, open_low=True)
    n, p = t.shape
    if len(traits) != n or len(latent.noise) != p:
        msg = f"t has shape {t.shape}, traits {traits.shape}, latent {len(latent.noise)} genes: they do not pair."
        raise ValueError(msg)
    k = traits.shape[1]
    covariance, cross = latent.covariance, t.T @ traits / n
    scale = np.sqrt(np.diag(covariance) + latent.noise)
    largest = np.maximum(np.abs(cross / scale[:, None]).max(axis=0), 1e-12)
    path = _lasso(covariance, cross, largest, scale)
    fold = np.random.default_rng([seed, 11]).integers(_FOLDS, size=n)
    read = np.linalg.solve(
        covariance + np.diag(latent.noise), covariance
    )  # slopes on counts, of slopes on what they read
    loss = np.zeros((_FOLDS, len(_PENALTIES), k))
    for f in range(_FOLDS):
        held = fold == f
        rest = (cross * n - t[held].T @ traits[held]) / max(n - held.sum(), 1)
        slopes = np.einsum("pq,lqk->lpk", read, _lasso(covariance, rest, largest, scale))
        second, first = t[held].T @ t[held], t[held].T @ traits[held]
        fitted = np.einsum("pq,lqk->lpk", second, slopes)
        loss[f] = ((slopes * fitted).sum(axis=1) - 2 * (slopes * first).sum(axis=1)) / max(held.sum(), 1)
    mean, error = loss.mean(axis=0), loss.std(axis=0, ddof=1) / _FOLDS**0.5
    slopes, z = np.zeros((p, k)), np.zeros((p, k))
    for j in range(k):
        best = int(mean[:, j].argmin())
        chosen = int(np.flatnonzero(mean[:, j] <= mean[best, j] + error[best, j])[0])
        support = np.flatnonzero(path[chosen, :, j])
        support = support[np.argsort(-np.abs(path[chosen, support, j]))][: max(n // 20, 1)]
        slopes[:, j], z[:, j] = _refit(t, traits[:, j], latent, support, float(norm.isf(level / 2 / (p * k))))
    return slopes, z


def _lasso(covariance: np.ndarray, cross: np.ndarray, largest: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Minima of b' C b / 2 - b' c + penalty * sum scale |b| along the path, penalties x p x k (accelerated proximal gradients)."""
    step = 1 / (np.linalg.norm(covariance, 2) + 1e-6)
    b = np.zeros_like(cross)
    out = np.empty((len(_PENALTIES), *cross.shape))
    for i, share in enumerate(_PENALTIES):
        threshold = step * share * largest * scale[:, None]
        ahead, momentum = b, 1.0
        for _ in range(_STEPS):
            moved = ahead - step * (covariance @ ahead - cross)
            new = np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)
            change = new - b
            if ((ahead - new) * change).sum() > 0:  # the momentum leads uphill: start it again
                momentum = 1.0
            after = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead, b, momentum = new + (momentum - 1) / after * change, new, after
            if np.abs(change).max() < 1e-6:
                break
        out[i] = b
    return out


def _refit(
    t: np.ndarray, trait: np.ndarray, latent: LatentExpression, support: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Corrected least squares on the genes of a support, those whose z is under ``least`` left out one after another: slopes and z, p each."""
    slopes, z = np.zeros(t.shape[1]), np.zeros(t.shape[1])
    while len(support):
        x, noise = t[:, support], latent.noise[support]
        inverse = np.linalg.pinv(latent.covariance[np.ix_(support, support)], rcond=1e-6, hermitian=True)
        b = inverse @ (x.T @ trait / len(x))
        score = x * (trait - x @ b)[:, None] + noise * b
        error = np.sqrt(np.maximum(np.diag(inverse @ (score.T @ score / len(x)) @ inverse) / len(x), 1e-300))
        weakest = int(np.argmin(np.abs(b / error)))
        if abs(b[weakest] / error[weakest]) >= least:
            slopes[support], z[support] = b, b / error
            break
        support = np.delete(support, weakest)
    return slopes, z
