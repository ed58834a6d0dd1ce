"""What genes do to smooth traits of real cells, by regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sst.nn import meaningful, traits

if TYPE_CHECKING:
    from torch import Tensor

    from sst.nn import ExpressionTransform

    from ._loader import Cells

MOST = 20_000  # cells that are measured
BLOCK = 1024


def fit_response(cells: Cells, transform: ExpressionTransform, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression of the traits of real crops on the transformed expression of their cells, within slides where there are several.

    The penalty, p / n in units of a standardised gene's variance, takes away what as many genes as there are would explain by chance.

    Parameters
    ----------
    cells
        Training cells; at most 20,000 of them, drawn by ``seed``, are measured.
    transform
        Of the counts, statistics set; on the CPU.
    seed
        Of the draw.

    Returns
    -------
    Slopes (p, traits), in standard deviations of a trait (within slides) per unit of transformed expression; those standard deviations (traits,); and
    weights of the traits (traits,): the share of crops in which one means something. That genes do nothing to a trait is worth as much as that they do.
    """
    chosen = np.sort(np.random.default_rng([seed, 4]).permutation(cells.n)[:MOST])
    x, y, sound = [], [], []
    with torch.no_grad():
        for start in range(0, len(chosen), BLOCK):
            some = chosen[start : start + BLOCK]
            crops = np.ascontiguousarray(cells.source.take(cells.rows[some]))
            images = torch.from_numpy(crops).float() / 255
            y.append(traits(images).double())
            sound.append(meaningful(images) * len(some))
            counts = cells.expression[some]
            dense = counts if isinstance(counts, np.ndarray) else counts.toarray()
            x.append(transform(torch.from_numpy(np.asarray(dense, dtype=np.float32))).double())
    genes, seen = (torch.cat(parts) for parts in (x, y))
    if cells.slides is not None:
        slides = torch.from_numpy(cells.slides[chosen])
        genes, seen = within(genes, slides), within(seen, slides)
    genes = genes - genes.mean(dim=0)
    spread = seen.std(dim=0, correction=0).clamp_min(1e-6)
    seen = (seen - seen.mean(dim=0)) / spread
    n, p = genes.shape
    penalty = torch.diag(genes.square().mean(dim=0).clamp_min(1e-6) * (p / n))
    slopes = torch.linalg.solve(genes.T @ genes / n + penalty, genes.T @ seen / n)
    return slopes.float(), spread.float(), torch.stack(sound).sum(dim=0) / n


def within(values: Tensor, slides: Tensor) -> Tensor:
    """Values (n, k) less the mean of their slide (codes from 0, n)."""
    sums = values.new_zeros(int(slides.max()) + 1, values.shape[1]).index_add_(0, slides, values)
    return values - (sums / torch.bincount(slides, minlength=len(sums)).clamp_min(1)[:, None])[slides]
