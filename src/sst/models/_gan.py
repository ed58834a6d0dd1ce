"""The trained generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from sst._settings import settings
from sst._validate import check_range
from sst.nn import Generator
from sst.train import GANConfig, from_dict, to_dict, to_uint8

from ._base import Model, progress_bar
from ._inputs import ExpressionInput, cell_latents, cell_seeds

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from torch import nn

    from ._registry import Registry


def build_generator(registry: Registry, config: GANConfig) -> Generator:
    """An untrained generator of the registry's sizes."""
    return Generator(
        registry.n_inputs,
        img_channels=len(registry.channels),
        resolution=registry.output_size,
        **to_dict(config.generator),
    )


def map_bytes(generator: Generator) -> int:
    """Bytes of the largest feature map of one cell."""
    return 4 * max(width * h * w for width, (h, w) in zip(generator.widths, generator.noise_shapes, strict=True))


class GAN(Model):
    """Images of cells from their expression: the running average of a trained generator.

    Train one with :func:`sst.tl.train_gan`, or load it with :meth:`load`.

    Parameters
    ----------
    registry
        Genes, channels and sizes.
    config
        What it was trained with.
    generator
        The network.
    history
        Metrics by iteration.
    """

    kind: ClassVar[str] = "gan"
    images = "generated"
    _at_once = (64, 512)
    config: GANConfig

    def __init__(
        self, registry: Registry, config: GANConfig, generator: Generator, history: pd.DataFrame | None = None
    ) -> None:
        super().__init__(registry, config, history)
        self.generator = generator.eval().requires_grad_(False)  # noqa: FBT003

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def _map_bytes(self) -> int:
        return map_bytes(self.generator)

    @classmethod
    def _build(cls, registry: Registry, config: dict[str, Any]) -> Self:
        made = from_dict(GANConfig, config)
        return cls(registry, made, build_generator(registry, made))

    @torch.no_grad()  # not inference mode: constants cached meanwhile must serve training too
    def generate(
        self,
        data: AnnData | Any,
        *,
        layer: str | None = None,
        n_samples: int = 1,
        seed: int | None = 0,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Draw images of cells.

        The latent vector and the noise of a cell depend on ``seed`` and the cell's name (the row number, for an array) alone: the
        same cell before and after an edit, in any batch and order, differs by its genes and by nothing else.

        Parameters
        ----------
        data
            AnnData (genes in any order), or counts n x p in the order of ``registry.genes``.
        layer
            Layer of the AnnData with the expression (``None``: ``X``).
        n_samples
            Images of each cell, with different latent vectors.
        seed
            Of latents and noise (``None``: :attr:`sst.settings.seed`).
        batch_size
            Cells at a time.
        device
            Where to compute (``None``: where the model is).
        progress
            Show a progress bar (``None``: the setting).

        Returns
        -------
        uint8 images n x c x h x w; n x n_samples x c x h x w if ``n_samples > 1``.

        Raises
        ------
        ValueError
            Genes, channels or sizes differ from the model's; expression is negative or missing.
        """
        check_range("n_samples", n_samples, low=1)
        seed = settings.seed if seed is None else seed
        expression = ExpressionInput(data, self.registry, layer)
        if device is not None:
            self.to(device)
        where, g = self.device, self.generator
        size = batch_size or self.cells_at_once()
        side = self.registry.output_size
        out = np.empty((expression.n, n_samples, g.img_channels, side, side), dtype=np.uint8)
        with progress_bar(expression.n, "generate", progress=progress) as bar:
            for a, rows in expression.blocks(size):
                names = expression.names[a : a + len(rows)]
                x = torch.from_numpy(rows).to(where)
                taps = g.kernels(x)
                for sample in range(n_samples):
                    z = cell_latents(names, g.z_dim, seed, sample).to(where)
                    noise = cell_seeds(names, seed, sample, "noise")
                    images = g.synthesis(g.styles(g.mapping(z), x), taps, noise=noise)
                    out[a : a + len(rows), sample] = to_uint8(images).cpu().numpy()
                bar.update(len(rows))
        return out[:, 0] if n_samples == 1 else out
