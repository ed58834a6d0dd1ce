"""What genes do to smooth traits of real cells, by sparse regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sst.editing import fit_latent, sparse_effects
from sst.nn import meaningful, traits

if TYPE_CHECKING:
    from torch import Tensor

    from sst.nn import ExpressionTransform

    from ._loader import Cells

MOST = 20_000  # cells that are measured
BLOCK = 1024


def fit_response(
    cells: Cells, transform: ExpressionTransform, seed: int, *, around: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes of the traits of real crops on the latent expression of the genes that act on them (:func:`sst.editing.sparse_effects`), within slides where there are several.

    Parameters
    ----------
    cells
        Training cells; at most 20,000 of them, drawn by ``seed``, are measured.
    transform
        Of the counts (log1p), statistics set; on the CPU.
    seed
        Of the draws.
    around
        Regress the surroundings' traits too.

    Returns
    -------
    Slopes (p, traits), in standard deviations of a trait (within slides) per unit of transformed expression, 0 for genes that are not shown to act; those standard deviations (traits,); and
    weights of the traits (traits,): the share of crops in which one means something. That genes do nothing to a trait is worth as much as that they do.
    """
    chosen = np.sort(np.random.default_rng([seed, 4]).permutation(cells.n)[:MOST])
    x, y, sound = [], [], []
    with torch.no_grad():
        for start in range(0, len(chosen), BLOCK):
            some = chosen[start : start + BLOCK]
            crops = np.ascontiguousarray(cells.source.take(cells.rows[some]))
            images = torch.from_numpy(crops).float() / 255
            y.append(traits(images, around=around).double())
            sound.append(meaningful(images, around=around) * len(some))
            counts = cells.expression[some]
            dense = counts if isinstance(counts, np.ndarray) else counts.toarray()
            x.append(np.asarray(dense, dtype=np.float64))
    counts, seen = np.concatenate(x), torch.cat(y)
    slides = torch.zeros(len(seen), dtype=torch.long)
    if cells.slides is not None:
        slides = torch.from_numpy(np.asarray(cells.slides)[chosen])
    latent = fit_latent(counts, slides.numpy(), between=False)
    t = within(torch.from_numpy(latent.standardise(counts)), slides)
    seen = within(seen, slides)
    spread = seen.std(dim=0, correction=0).clamp_min(1e-6)
    found, _ = sparse_effects(t.numpy(), (seen / spread).numpy(), latent, seed=seed)
    slopes = torch.from_numpy(found) * (transform.std.double() / torch.from_numpy(latent.scale))[:, None]
    n = len(seen)
    return slopes.float(), spread.float(), torch.stack(sound).sum(dim=0) / n


def some_crops(cells: Cells, seed: int, n: int = 512) -> Tensor:
    """Up to ``n`` real crops, drawn by ``seed``: (n, c, h, w), from 0 to 1."""
    chosen = np.sort(np.random.default_rng([seed, 5]).permutation(cells.n)[:n])
    return torch.from_numpy(np.ascontiguousarray(cells.source.take(cells.rows[chosen]))).float() / 255


def within(values: Tensor, slides: Tensor) -> Tensor:
    """Values (n, k) less the mean of their slide (codes from 0, n)."""
    sums = values.new_zeros(int(slides.max()) + 1, values.shape[1]).index_add_(0, slides, values)
    return values - (sums / torch.bincount(slides, minlength=len(sums)).clamp_min(1)[:, None])[slides]
