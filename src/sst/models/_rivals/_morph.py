"""A cell's own nucleus scaled, its channels multiplied, by what a regression says of area and intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from sst._validate import check_range
from sst.models._base import progress_bar
from sst.models._image_input import ImageInput
from sst.models._inputs import ExpressionInput

from ._regression import FeatureRegression, RegressionConfig

if TYPE_CHECKING:
    from anndata import AnnData

MOST = 1.5
"""Largest change of a logarithm that is drawn."""


@dataclass(frozen=True)
class MorphConfig(RegressionConfig):
    """A regression of the nuclear area and of one intensity a channel, in this order.

    Attributes
    ----------
    nucleus_channel
        Number of the channel that is scaled.
    """

    nucleus_channel: int = 0


class Morph(FeatureRegression):
    """A parametric morph of the real cell: a rival of networks that draw.

    Log area and log intensities are regressed on expression; the crop's nuclear channel is then scaled about the nucleus' own
    centre, by the change that an edit predicts for the area, and each channel is multiplied by the change of its intensity. It
    knows effects of two kinds, larger and brighter. Fit one with :func:`sst.tl.fit_rival` (``kind="morph"``).

    Parameters
    ----------
    registry, config, arrays
        As for :class:`FeatureRegression`.
    """

    kind: ClassVar[str] = "morph"
    starts_from = "crop"
    images = "morph"
    config: MorphConfig
    _config = MorphConfig

    def generate(
        self,
        data: AnnData | Any,
        *,
        layer: str | None = None,
        source_layer: str | None = None,
        images: Any = None,
        n_samples: int = 1,
        seed: int | None = 0,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Draw real cells under the expression in ``layer``; where it is their own, the crop itself.

        Parameters
        ----------
        data
            AnnData with ``obsm["crops"]`` (genes in any order), or counts n x p in the order of ``registry.genes`` together
            with ``images``.
        layer
            Layer with the expression to draw (``None``: ``X``).
        source_layer
            Expression that belongs to the crops (``None``: ``X``; for arrays: ``data``).
        images
            Real crops n x c x h x w uint8 (``None``: those of the object).
        n_samples
            Images of each cell; all are the same.
        seed, device
            Not used. Here so that all image models are called alike.
        batch_size
            Cells at a time.
        progress
            Show a progress bar (``None``: the setting).

        Returns
        -------
        uint8 images n x c x h x w; n x n_samples x c x h x w if ``n_samples > 1``.

        Raises
        ------
        TypeError
            An array without ``images``, or images that are not uint8.
        ValueError
            Genes, channels or sizes differ from the model's; expression is negative or missing.
        """
        del seed, device
        check_range("n_samples", n_samples, low=1)
        if images is None and not hasattr(data, "obsm"):
            msg = f"a morph draws real cells: give images= beside a {type(data).__name__}, or an AnnData with crops."
            raise TypeError(msg)
        crops = ImageInput(data if images is None else images, self.registry)
        after = self._linear(ExpressionInput(data, self.registry, layer))
        before = self._linear(ExpressionInput(data, self.registry, source_layer))
        change = np.clip(after - before, -MOST, MOST)
        out = np.empty(crops.images.shape, dtype=np.uint8)
        size = batch_size or 256
        with progress_bar(crops.n, "morph", progress=progress, most=4 * size) as bar:
            for a in range(0, crops.n, size):
                b = min(a + size, crops.n)
                out[a:b] = morph(
                    crops.rows(a, b),
                    np.exp(change[a:b, 0]),
                    np.exp(change[a:b, 1:]),
                    nucleus_channel=self.config.nucleus_channel,
                )
                bar.update(b - a)
        return out if n_samples == 1 else np.repeat(out[:, None], n_samples, axis=1)


def morph(images: np.ndarray, area: np.ndarray, intensity: np.ndarray, *, nucleus_channel: int) -> np.ndarray:
    """Scale the central nucleus of each image (uint8, n x c x h x w) by ``area`` (n) and multiply its channels by ``intensity`` (n x c).

    The nuclear channel is scaled evenly within the nucleus, ever less beyond, and not at all at a little over twice the radius,
    so that neighbours stay where they are.
    """
    out = images.astype(np.float32)
    centre, radius = find_nucleus(out[:, nucleus_channel])
    n, _, h, w = images.shape
    inner = (1.3 * radius)[:, None, None]
    factor = np.sqrt(area)[:, None, None]
    new = inner * factor  # where the inner edge comes to lie
    outer = np.maximum(1.8 * inner, 1.3 * new)
    y = np.arange(h)[None, :, None] - centre[:, 0, None, None]
    x = np.arange(w)[None, None, :] - centre[:, 1, None, None]
    reach = np.hypot(y, x)
    between = inner + (reach - new) * (outer - inner) / (outer - new)
    source = np.where(reach <= new, reach / factor, np.where(reach < outer, between, reach))
    pull = np.divide(source, reach, out=np.ones_like(reach), where=reach > 1e-6)
    # pixel positions -> -1..1 with the corners of the image at -1 and 1
    grid = np.stack(
        [
            2 * (x * pull + centre[:, 1, None, None] + 0.5) / w - 1,
            2 * (y * pull + centre[:, 0, None, None] + 0.5) / h - 1,
        ],
        axis=-1,
    ).astype(np.float32)
    stain = torch.from_numpy(out[:, nucleus_channel : nucleus_channel + 1])
    moved = F.grid_sample(
        stain, torch.from_numpy(grid), mode="bilinear", padding_mode="reflection", align_corners=False
    )
    moved_enough = np.abs(area - 1) > 1e-6
    out[moved_enough, nucleus_channel] = moved[:, 0].numpy()[moved_enough]
    return np.rint(np.clip(out * intensity[:, :, None, None], 0, 255)).astype(np.uint8)


def find_nucleus(stain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (n x 2: row, column) and radius (n, pixels) of the blob at the centre of each image of a nuclear stain.

    The centre is the mean shift of the stain above its lower quartile, in a Gaussian window of 0.15 of the side; the radius that of
    a disc with as many pixels as lie above half height around it.
    """
    n, h, w = stain.shape
    floor = np.quantile(stain, 0.25, axis=(1, 2))[:, None, None]
    above = np.clip(stain - floor, 0, None) + 1e-3
    y, x = np.arange(h, dtype=float)[None, :, None], np.arange(w, dtype=float)[None, None, :]
    centre = np.tile([(h - 1) / 2, (w - 1) / 2], (n, 1))
    side = min(h, w)
    for _ in range(5):
        square = (y - centre[:, 0, None, None]) ** 2 + (x - centre[:, 1, None, None]) ** 2
        weight = above * np.exp(-square / (2 * (0.15 * side) ** 2))
        total = weight.sum(axis=(1, 2))
        centre = np.stack([(weight * y).sum((1, 2)) / total, (weight * x).sum((1, 2)) / total], axis=1)
    reach = np.hypot(y - centre[:, 0, None, None], x - centre[:, 1, None, None])
    near = reach < 0.15 * side
    plateau = (above * near).sum((1, 2)) / near.sum((1, 2))
    inside = (above > plateau[:, None, None] / 2) & (reach < 0.4 * side)
    radius = np.sqrt(inside.sum((1, 2)) / np.pi)
    return centre, np.clip(radius, 0.06 * side, 0.4 * side)
