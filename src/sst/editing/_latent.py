"""Errors in variables: counts are noisy readings of a cell's expression, and an edit is meant to move what they read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.stats import gamma, nbinom, poisson

from sst._arguments import checked
from sst._validate import check_range

from ._matrix import as_rows, densify, iter_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

RELIABLE = 0.3
"""Share of a gene's variance that must not be counting noise for an edit of it to mean much."""
MOVED = 0.95
"""Share of the asked displacement that the inferred expression makes, at least."""
BEYOND = 6.0
"""Furthest value that is shown, in standard deviations of the gene's log counts."""
_NODES = 32
_ROUNDS = 30
_SILENT = 0.05  # share of signal under which a direction says nothing
_ABOVE = 1.02  # of the edge: the largest eigenvalue of noise alone fluctuates around it


class Shift(NamedTuple):
    """What image models are shown in place of a displacement.

    Attributes
    ----------
    values
        n x p, in standard deviations of log counts.
    penalty
        Of the inversion.
    moved
        Share of the asked displacement that the inferred expression makes along it.
    strayed
        Length of what it makes beside it, as a share of the asked displacement's.
    amplified
        Length of what is shown / of what was asked.
    """

    values: np.ndarray
    penalty: float
    moved: float
    strayed: float
    amplified: float


@dataclass(frozen=True, eq=False)
class LatentExpression:
    """Standardised log counts t as latent expression z plus counting noise: covariances of both.

    Attributes
    ----------
    mean, scale
        Mean and standard deviation of log(1 + counts) of each gene.
    noise
        Variance of t that counting adds, each gene (p).
    covariance
        Of z, p x p.
    n_cells
        Cells it was learnt from.
    shrinkage
        How far the training of what is shown to shrinks slopes: as so much more noise in every gene would.
    """

    mean: np.ndarray
    scale: np.ndarray
    noise: np.ndarray
    covariance: np.ndarray
    n_cells: int
    shrinkage: float = 0.0

    @property
    def reliability(self) -> np.ndarray:
        """Share of each gene's variance that is not counting noise (p)."""
        signal = np.diag(self.covariance)
        return signal / (signal + self.noise)

    @cached_property
    def _basis(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions V (p x p, V' S_t V = 1), the share of signal in each, and S_t V."""
        total = self.covariance + np.diag(self.noise + self.shrinkage)
        share, vectors = scipy.linalg.eigh(self.covariance, total)
        return vectors, np.clip(share, 0, 1), total @ vectors

    def with_shrinkage(self, shrinkage: float) -> LatentExpression:
        """The same for a model whose training shrinks slopes as so much more noise in every gene would (a ridge penalty / cells)."""
        return replace(self, shrinkage=shrinkage)

    def standardise(self, counts: np.ndarray) -> np.ndarray:
        """Standardised log counts t, n x p."""
        return (np.log1p(counts) - self.mean) / self.scale

    def infer(self, t: np.ndarray) -> np.ndarray:
        """Best linear estimate of the latent expression, n x p."""
        vectors, share, images = self._basis
        return ((t @ vectors) * share) @ images.T

    def shift(self, displacement: np.ndarray, *, moved: float = MOVED, penalty: float | None = None) -> Shift:
        """What has to be shown so that the inferred latent expression moves by ``displacement``, and nowhere else.

        A network that learnt from counts answers to what they say of the latent expression, so its answer to one gene's counts is
        damped, and shared among the genes that go with it. With S_z the covariance of the latent expression and S_t = S_z + noise (+ shrinkage),
        the inferred latent expression is L t, L = S_z S_t^-1. Shown is the x with the least (L x - d)' S_t^-1 (L x - d) +
        penalty * x' S_t^-1 x: in directions with a share s of signal, d is multiplied by s / (s^2 + penalty).

        Parameters
        ----------
        displacement
            Asked for, n x p, in standard deviations of log counts.
        moved
            The penalty is the largest at which the inferred expression makes at least this share of the displacement (of its part in
            directions with any signal), but no less than p / (10 n_cells): smaller ones would amplify errors of the covariance.
        penalty
            Given instead.

        Notes
        -----
        Errors in variables by regression calibration: Carroll, Ruppert, Stefanski and Crainiceanu, *Measurement error in nonlinear
        models* (2006), chapter 4.
        """
        check_range("moved", moved, low=0, high=1)
        vectors, share, images = self._basis
        inner, outer = displacement @ vectors, displacement @ images
        asked = float((displacement**2).sum())
        weight = (inner * outer).sum(axis=0) / asked if asked else np.zeros(len(share))
        if penalty is None:
            within = float(weight[share > _SILENT].sum())  # nothing that is shown moves the rest
            penalty = max(_largest_penalty(weight, share, moved * within), len(share) / (10 * self.n_cells))
        gain = share / (share**2 + penalty)
        values = (inner * gain) @ images.T
        made = (inner * gain * share) @ images.T
        along = float((weight * share * gain).sum())
        length = max(asked, 1e-300) ** 0.5
        beside = float(np.linalg.norm(made - along * displacement)) / length
        return Shift(values, float(penalty), along, beside, float(np.linalg.norm(values)) / length)

    def show(
        self, own: np.ndarray, edited: np.ndarray, *, moved: float = MOVED, penalty: float | None = None
    ) -> np.ndarray:
        """Counts to show instead of ``edited``, n x p: log(1 + shown) is that of ``own`` plus :meth:`shift`.

        They may lie between -1 and 0: where a gene whose count is 0 already must say less.
        """
        t = self.standardise(own)
        found = self.shift(self.standardise(edited) - t, moved=moved, penalty=penalty)
        shown = np.clip(t + found.values, np.minimum(-BEYOND, t), np.maximum(BEYOND, t))
        return np.expm1(shown * self.scale + self.mean)


@checked
def fit_latent(
    counts: Any, groups: Sequence[Any] | np.ndarray | None = None, *, between: bool = True, dispersion: float = 0.0
) -> LatentExpression:
    """Learn latent expression and counting noise from counts.

    The noise of a gene is what Poisson counts with its mean and spread add to log(1 + counts). The covariance between the groups' means
    is taken as it is. Within groups, in units of what is unique to each gene, directions of the covariance beyond what that many
    cells make by chance (the edge of the Marchenko-Pastur law) are latent factors, their variances freed of that chance; the
    covariances that they leave are shrunk by how much of them chance explains (James and Stein); what is left of a gene's variance,
    beyond the noise, is its own.

    Parameters
    ----------
    counts
        Cells x genes: dense, sparse or dask; not negative.
    groups
        Label of each cell; ``None``: one group.
    between
        Whether what differs between the groups' means is expression; without, covariances are those within groups, as of a model
        whose training left out what groups (slides) differ in.
    dispersion
        Variance of technical noise beside Poisson's, as a share of the squared rate (variance = mean + dispersion * mean^2): from technical replicates, or
        from genes that are known not to vary. The counts alone cannot tell it from a gene's own variation.

    Raises
    ------
    ValueError
        Fewer than ten cells.
    """
    X = as_rows(counts)
    n, p = X.shape
    if groups is not None and np.shape(groups) != (n,):
        msg = f"groups: expected {n} labels, one a cell, got shape {np.shape(groups)}."
        raise ValueError(msg)
    if n < 10:
        msg = f"{n} cells: at least 10 are needed to tell expression from noise."
        raise ValueError(msg)
    names, where = np.unique(np.zeros(n) if groups is None else np.asarray(groups, dtype=str), return_inverse=True)
    sums, squares, outer = np.zeros(p), np.zeros(p), np.zeros((p, p))
    totals = np.zeros((len(names), p))
    for rows, block in iter_rows(X):
        x = densify(block, np.float64)
        sums += x.sum(axis=0)
        squares += (x**2).sum(axis=0)
        logged = np.log1p(x)
        np.add.at(totals, where[rows], logged)
        outer += logged.T @ logged
    mean, rate = totals.sum(axis=0) / n, sums / n
    size = np.bincount(where)[:, None]
    apart = totals / size - mean
    apart = (apart * size).T @ apart / n
    covariance = outer / n - np.outer(mean, mean)
    scale = np.sqrt(np.clip(np.diag(covariance), 0, None))
    flat = scale < 1e-6  # never varies: nothing to say
    scale[flat] = 1.0
    noise = counting_noise(rate, squares / n - rate**2, dispersion=dispersion) / scale**2
    noise = np.clip(np.where(flat, 1.0, noise), 1e-4, None)
    within = (covariance - apart) / np.outer(scale, scale)
    within[flat, flat] = 1.0
    latent = _free_of_noise(within, noise, n)
    if between:
        latent += apart / np.outer(scale, scale)
    return LatentExpression(mean, scale, noise, latent, n)


@checked
def counting_noise(mean: np.ndarray, variance: np.ndarray, *, dispersion: float = 0.0) -> np.ndarray:
    """Variance that counting adds to log(1 + counts) of genes with a mean and variance of their counts.

    Counts of a rate are Poisson's, or negative binomial with ``dispersion``. The rates are taken for gamma-distributed, with the variance that the counts have
    beyond that.
    """
    check_range("dispersion", dispersion, low=0, high=100)
    mean, variance = np.maximum(mean, 1e-6), np.asarray(variance)
    if mean.ndim != 1 or mean.shape != variance.shape:
        msg = f"mean has shape {mean.shape}, variance {variance.shape}: they must be the same, one value a gene."
        raise ValueError(msg)
    spread = (variance - mean - dispersion * mean**2) / (1 + dispersion)
    shape = mean**2 / np.maximum(spread, 1e-3 * mean)
    at = (np.arange(_NODES) + 0.5) / _NODES
    rates = gamma.ppf(at[:, None], shape, scale=mean / shape)
    grid, values = _counting_variance(float(dispersion))
    found = np.interp(np.log(np.maximum(rates, grid[0])), np.log(grid), values)
    large = rates > grid[-1]
    found[large] = (rates[large] + dispersion * rates[large] ** 2) / (1 + rates[large]) ** 2  # delta method
    return found.mean(axis=0)


@lru_cache(maxsize=4)
def _counting_variance(dispersion: float) -> tuple[np.ndarray, np.ndarray]:
    """Variance of log(1 + x) of Poisson (negative binomial) x, on a grid of rates."""
    grid = np.geomspace(1e-4, 200, 300)
    x = np.arange(round(400 * (1 + 10 * dispersion**0.5)))
    rate, logged = grid[:, None], np.log1p(x)
    chance = nbinom.pmf(x, 1 / dispersion, 1 / (1 + dispersion * rate)) if dispersion else poisson.pmf(x, rate)
    return grid, chance @ logged**2 - (chance @ logged) ** 2


def _free_of_noise(covariance: np.ndarray, noise: np.ndarray, n: int) -> np.ndarray:
    """Covariance (p x p) of latent expression, from that of n noisy readings."""
    p = len(noise)
    ratio = p / n
    variance = np.diag(covariance)
    ridge = covariance + max(1e-6, 0.1 * min(ratio, 1)) * np.diag(variance)
    unique = np.clip(1 / np.diag(np.linalg.inv(ridge)), noise, None)  # what other genes do not explain
    factors = np.zeros((p, 0))
    for _ in range(_ROUNDS):
        root = np.sqrt(unique)
        values, vectors = np.linalg.eigh(covariance / np.outer(root, root))
        kept = values > (1 + np.sqrt(ratio)) ** 2 * _ABOVE
        # a spike of size l appears in a sample as l (1 + ratio / (l - 1)): solved for l
        half = (values[kept] + 1 - ratio) / 2
        spikes = half + np.sqrt(np.clip(half**2 - values[kept], 0, None))
        factors = vectors[:, kept] * np.sqrt(np.clip(spikes - 1, 0, None)) * root[:, None]
        again = np.clip(variance - (factors**2).sum(axis=1), noise, None)
        done = np.abs(again - unique).max() < 1e-4
        unique = again
        if done:
            break
    rest = covariance - factors @ factors.T
    np.fill_diagonal(rest, 0)
    chance = (unique.sum() ** 2 - (unique**2).sum()) / n  # expected square of the rest, were it chance alone
    rest *= max(0.0, 1 - chance / max((rest**2).sum(), 1e-300))
    root = np.sqrt(noise)
    values, vectors = np.linalg.eigh((factors @ factors.T + rest + np.diag(unique - noise)) / np.outer(root, root))
    vectors *= root[:, None]
    return (vectors * np.clip(values, 0, None)) @ vectors.T


def _largest_penalty(weight: np.ndarray, share: np.ndarray, moved: float) -> float:
    """Largest penalty at which sum of weight s^2 / (s^2 + penalty) is at least ``moved``."""
    low, high = -14.0, 2.0

    def reached(exponent: float) -> bool:
        return float((weight * share**2 / (share**2 + 10**exponent)).sum()) >= moved

    if not reached(low):
        return float(10**low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) else (low, middle)
    return float(10**low)
