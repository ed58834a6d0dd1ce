"""How near a generator comes to real cells that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sst._settings import logger
from sst.metrics import PixelPCA, frechet_distance
from sst.models import cell_latents, cell_seeds
from sst.train import to_uint8

from ._cells import split_rows

if TYPE_CHECKING:
    from anndata import AnnData

MOST = 2000  # held-out cells used
COMPONENTS = 24  # of the expression, beside the image's
CHUNK = 128


def measured_rows(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Rows that a generator learns from, and at most ``MOST`` that its distances are measured on.

    Without a split, some of the former stand in. Which ones does not depend on a seed, so that distances of runs compare.
    """
    train, test = split_rows(adata) or (np.arange(adata.n_obs), np.empty(0, dtype=int))
    if len(test) < 2:
        logger.warning("no held-out cells (sst.pp.train_test_split): distances are measured on training cells.")
        test = train[::10] if len(train) >= 20 else train
    return train, test if len(test) <= MOST else np.sort(np.random.default_rng(0).permutation(test)[:MOST])


class HeldOut:
    """Distances between real and generated images of the same held-out cells.

    ``distance`` is the Frechet distance of the *joint* distribution of image and expression (DeVries et al., 2019, *On the
    evaluation of conditional GANs*): image features (:class:`sst.metrics.PixelPCA`, fitted on the real ones) beside principal
    components of log counts, scaled to the same total variance. It falls only if images are real *and* fit their cell's genes.
    ``distance_images`` leaves the expression out. ``diversity`` is the mean standard deviation over cells of the generated
    images' features, relative to the real ones'.

    Parameters
    ----------
    images
        Real crops n x c x h x w uint8.
    counts
        Their expression, n x p.
    names
        The cells, whose latent vectors and noise stay the same over the training.
    """

    def __init__(self, images: np.ndarray, counts: np.ndarray, names: list[str]) -> None:
        self.counts, self.names = counts.astype(np.float32), names
        self.space = PixelPCA().fit([images])
        self.real = self.space(images)
        logged = np.log1p(counts.astype(np.float64))
        logged -= logged.mean(axis=0)
        u, s, _ = np.linalg.svd(logged, full_matrices=False)
        scores = (u * s)[:, :COMPONENTS]
        total = scores.var(axis=0).sum()
        scale = np.sqrt(self.real.var(axis=0).sum() / total) if total > 0 else 1.0
        self.expression = self.drawn = scores * scale  # of the real cells, and of those that are made
        self.name = f"{self.space.name} with {scores.shape[1]} components of the expression"

    @torch.no_grad()
    def images(self, generator: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """Generated images of (some of the) held-out cells, n x c x h x w uint8."""
        device = next(generator.parameters()).device
        rows = np.arange(len(self.names)) if rows is None else rows
        counts, cells = self.counts[rows], [self.names[i] for i in rows]
        made = []
        for a in range(0, len(rows), CHUNK):
            b = min(a + CHUNK, len(rows))
            x = torch.from_numpy(counts[a:b]).to(device)
            z = cell_latents(cells[a:b], generator.z_dim, 0).to(device)
            made.append(to_uint8(generator(z, x, noise=cell_seeds(cells[a:b], 0, use="noise"))).cpu().numpy())
        return np.concatenate(made)

    def __call__(self, generator: Any) -> dict[str, float]:
        """``distance``, ``distance_images`` and ``diversity`` of a generator."""
        found = self.space(self.images(generator))
        joint = frechet_distance(np.hstack([found, self.drawn]), np.hstack([self.real, self.expression]))
        return {
            "distance": float(joint),
            "distance_images": float(frechet_distance(found, self.real)),
            "diversity": float(np.sqrt(found.var(axis=0).sum() / max(self.real.var(axis=0).sum(), 1e-12))),
        }


def sample_grid(real: np.ndarray, made: np.ndarray, scale: int = 1) -> np.ndarray:
    """Real cells above generated ones, a row of cells for each channel (grey, h x w uint8)."""
    pairs = np.stack([real, made])  # 2 x n x c x h x w
    grid = pairs.transpose(2, 0, 3, 1, 4)  # c x 2 x h x n x w
    c, two, h, n, w = grid.shape
    return np.kron(grid.reshape(c * two * h, n * w), np.ones((scale, scale), dtype=np.uint8))
