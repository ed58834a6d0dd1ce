"""Images as a differentiable function of expression, and integrated gradients along a path of expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sst import _keys
from sst._settings import settings
from sst._validate import describe_options
from sst.models import ExpressionInput, ImageInput, cell_latents, cell_seeds, inputs_of, starts_from
from sst.nn import Code, decode
from sst.train import to_unit

if TYPE_CHECKING:
    from torch import Tensor

    from ._images import Drawing
    from ._measure import Cells, Measure

TorchFeature = Callable[["Tensor"], "Tensor"]


class Differentiable:
    """Images of cells, differentiable in their expression (n x p in the model's order, n x c x h x w in -1..1)."""

    def __init__(self, model: Any, cells: Cells, drawing: Drawing) -> None:
        self.model = model
        self.network: Any = getattr(model, "generator", None) or getattr(model, "editor", None)
        if not self.network:
            msg = f"a {model.registry.kind} has no gradient: use method='difference', or a GAN, an editor or an inversion."
            raise ValueError(msg)
        if inputs := inputs_of(model):
            msg = f"the {model.registry.kind} reads {list(inputs)} apart: there is no one gradient of a gene. Use method='difference'."
            raise ValueError(msg)
        self.order = model.registry.gene_index([str(g) for g in cells.var_names])
        names = [str(name) for name in cells.names]
        self.start = starts_from(model)
        if self.start == "code":
            self.fade = drawing.fade or 0.0
            part = ad.AnnData(
                cells.X.astype(np.float32),
                obs=pd.DataFrame(index=cells.names),
                var=pd.DataFrame(index=cells.var_names),
                uns={_keys.CROPS: cells.uns},
                obsm={_keys.CROPS: cells.crops},
            )
            source = ExpressionInput(part, model.registry)
            crops = model._crops(part, None, source.n)
            options: dict[str, Any] = {"refine": 0, "refine_steps": 0, "progress": False}
            found = [codes for *_, codes in model._codes(crops, source, drawing.batch_size, None, **options)]
            self.base = torch.cat([c.base for c in found]).clone()
            self.code = Code.cat([c.code for c in found]).each(torch.clone)
        elif self.start == "crop":
            crops, own = ImageInput(cells.crops, model.registry), cells.X[:, self.order].astype(np.float32)
            self.crops = to_unit(torch.from_numpy(crops.rows(0, crops.n)).to(model.device))
            self.own = torch.from_numpy(own).to(model.device)
        else:
            with torch.no_grad():
                self.w = self.network.mapping(cell_latents(names, self.network.z_dim, drawing.seed).to(model.device))
            self.noise = cell_seeds(names, drawing.seed, 0, "noise")

    def __call__(self, rows: np.ndarray, x: Tensor) -> Tensor:
        """Images of the cells ``rows`` under ``x`` (float32, in the model's order of genes)."""
        if self.start == "crop":
            return self.network(self.crops[rows], self.own[rows], x)
        if self.start == "code":
            return decode(self.network, self.base[rows], self.code[rows], x, fade=self.fade, noise="none")
        g = self.network
        return g.synthesis(g.styles(self.w[rows], x), g.kernels(x), noise=self.noise[rows])


def integrated_gradients(
    images: Differentiable,
    feature: TorchFeature,
    start: np.ndarray,
    end: np.ndarray,
    *,
    n_steps: int = 16,
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Share of each gene in the change of a feature along the straight path from ``start`` to ``end``.

    :math:`a_g = (x'_g - x_g) \int_0^1 \partial F / \partial x_g (x + t (x' - x))\,dt`, by the midpoint rule (Sundararajan et
    al. 2017). The shares of a cell add up to F(x') - F(x).

    Parameters
    ----------
    images
        Of the cells.
    feature
        Images in 0..255 (n x c x h x w) to n numbers.
    start, end
        Expression of the cells, m x p, in the object's order of genes.
    n_steps
        Steps of the integral.
    batch_size
        Images at a time.

    Returns
    -------
    Shares (m x p) and change of the feature (m).
    """
    order = images.order
    device = images.model.device
    first, last = (
        torch.from_numpy(np.ascontiguousarray(e[:, order], dtype=np.float32)).to(device) for e in (start, end)
    )
    shares = np.zeros(start.shape)
    change = np.zeros(len(start))
    network = images.network
    kept, network.compute_dtype = network.compute_dtype, "fp32"  # half precision spoils sums of small gradients
    try:
        bar = tqdm(total=len(start), desc="integrated gradients", disable=not settings.progress, leave=False)
        for low in range(0, len(start), batch_size):
            rows = np.arange(low, min(low + batch_size, len(start)))
            a, b = first[rows], last[rows]
            total = torch.zeros_like(a)
            for step in range(n_steps):
                x = (a + (step + 0.5) / n_steps * (b - a)).requires_grad_()
                value = feature(_grey(images(rows, x)))
                total += torch.autograd.grad(value.sum(), x)[0]
            shares[rows[:, None], order[None, :]] = ((b - a) * total / n_steps).double().cpu().numpy()
            with torch.no_grad():
                ends = [feature(_grey(images(rows, x))) for x in (a, b)]
            change[rows] = (ends[1] - ends[0]).double().cpu().numpy()
            bar.update(len(rows))
        bar.close()
    finally:
        network.compute_dtype = kept
    return shares, change


def torch_feature(measure: Measure) -> TorchFeature:
    """A differentiable form of a named feature.

    ``<channel>_window_mean`` is exact but for rounding and clipping to 8 bits; ``nucleus_area`` is a soft count of the
    pixels near the centre that are brighter than half way between background and nucleus (not of brightfield images, whose nuclei are dark).

    Raises
    ------
    ValueError
        The feature has none.
    """
    name = measure.names[0]
    means = {f"{_keys.column_name(c)}_window_mean": k for k, c in enumerate(measure.channels)}
    if name in means:
        channel = means[name]
        return lambda grey: grey[:, channel].clamp(0, 255).mean(dim=(1, 2))
    view = measure.view
    if name == "nucleus_area" and view is not None and not view.brightfield:
        unit = view.pixel_size**2 or 1.0
        return lambda grey: unit * _soft_area(grey[:, view.nucleus])
    msg = (
        f"feature={name!r} has no gradient: give gradient_feature= (images n x c x h x w in 0..255, as torch -> n), or use "
        f"method='difference'. {describe_options([*means, 'nucleus_area'], name)}"
    )
    raise ValueError(msg)


def _soft_area(image: Tensor) -> Tensor:
    """Pixels of the central nucleus, softly counted: n x h x w to n."""
    h, w = image.shape[1:]
    y, x = (torch.arange(s, device=image.device) - (s - 1) / 2 for s in (h, w))
    distance = torch.hypot(y[:, None] / (h / 2), x[None, :] / (w / 2))
    window = torch.sigmoid((0.7 - distance) / 0.05)  # leaves the neighbours out
    with torch.no_grad():
        flat = image.flatten(1)
        low = flat.quantile(0.1, dim=1)
        centre = image[:, distance < 0.25].flatten(1) if (distance < 0.25).any() else flat
        high = centre.quantile(0.75, dim=1)
        half = (low + high) / 2
        soft = ((high - low) / 10).clamp_min(1.0)
    return (torch.sigmoid((image - half[:, None, None]) / soft[:, None, None]) * window).sum(dim=(1, 2))


def _grey(images: Tensor) -> Tensor:
    return (images + 1) * 127.5
