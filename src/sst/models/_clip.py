"""CLIP: image and expression of a cell in one space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch.nn import functional as F

from sst.nn import ClipTowers
from sst.train import CLIPConfig, from_dict, to_unit

from ._base import Model, progress_bar
from ._image_input import ImageInput
from ._inputs import ExpressionInput

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from torch import nn

    from sst.train import TowersConfig

    from ._registry import Registry


def build_towers(registry: Registry, config: TowersConfig) -> ClipTowers:
    """Untrained towers of the registry's genes and channels."""
    return ClipTowers(
        len(registry.genes),
        len(registry.channels),
        dim=config.dim,
        backbone=config.backbone,
        widths=config.widths,
        dropout=config.dropout,
        transform=config.transform,
    )


@torch.no_grad()
def embed_images(
    towers: ClipTowers, images: ImageInput, batch_size: int | None, *, progress: bool | None = None
) -> np.ndarray:
    """Embeddings n x dim of unit length, float32."""
    where = next(towers.parameters()).device
    size = batch_size or (1024 if where.type == "cuda" else 128)
    parts = [np.empty((0, towers.image_head.outer.out_features), dtype=np.float32)]
    with progress_bar(images.n, "embed images", progress=progress, most=4 * size) as bar:
        for a in range(0, images.n, size):
            block = torch.from_numpy(images.rows(a, min(a + size, images.n))).to(where)
            parts.append(F.normalize(towers.encode_image(to_unit(block)), dim=1).float().cpu().numpy())
            bar.update(len(block))
    return np.concatenate(parts)


class CLIP(Model):
    """Embeddings of images and of expression in one space, where a cell's two are neighbours.

    Train one with :func:`sst.tl.train_clip`, or load it with :meth:`load`. Its image embedding doubles as feature space of the
    data's own domain, for distances between sets of images.

    Parameters
    ----------
    registry
        Genes, channels and sizes.
    config
        What it was trained with.
    towers
        The networks.
    history
        Metrics by iteration.
    """

    kind: ClassVar[str] = "clip"
    config: CLIPConfig

    def __init__(
        self, registry: Registry, config: CLIPConfig, towers: ClipTowers, history: pd.DataFrame | None = None
    ) -> None:
        super().__init__(registry, config, history)
        self.towers = towers.eval().requires_grad_(False)  # noqa: FBT003

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both towers."""
        return {"towers": self.towers}

    @classmethod
    def _build(cls, registry: Registry, config: dict[str, Any]) -> Self:
        made = from_dict(CLIPConfig, config)
        return cls(registry, made, build_towers(registry, made.towers))

    @property
    def metrics(self) -> dict[str, float]:
        """Retrieval among held-out cells of the weights kept: the row of :attr:`history` with the best mean rank.

        ``image_to_expression_top1`` and ``_top10``, ``expression_to_image_top1`` and ``_top10``, ``chance_top1`` and ``_top10``
        (shares in [0, 1]), ``rank`` (0 perfect, 0.5 guessing), ``loss``. Empty if no cell was held out.
        """
        if "rank" not in self.history or self.history["rank"].isna().all():
            return {}
        row = self.history.loc[self.history["rank"].idxmin()]
        names = [c for c in self.history.columns if "_top1" in c] + ["rank", "loss"]
        return {name: float(row[name]) for name in names}

    def embed_images(
        self,
        data: AnnData | Any,
        *,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        data
            AnnData (its ``obsm["crops"]``), or uint8 images n x c x h x w of any size.
        batch_size
            Images at a time.
        device
            Where to compute (``None``: where the model is).
        progress
            Show a progress bar (``None``: the setting).

        Returns
        -------
        n x dim float32, each row of unit length.
        """
        if device is not None:
            self.to(device)
        return embed_images(
            self.towers, ImageInput(data, self.registry, same_size=False), batch_size, progress=progress
        )

    @torch.no_grad()
    def embed_expression(
        self,
        data: AnnData | Any,
        *,
        layer: str | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
    ) -> np.ndarray:
        """Embed expression.

        Parameters
        ----------
        data
            AnnData (genes in any order), or counts n x p in the order of ``registry.genes``.
        layer
            Layer of the AnnData (``None``: ``X``).
        batch_size
            Cells at a time.
        device
            Where to compute (``None``: where the model is).

        Returns
        -------
        n x dim float32, each row of unit length.
        """
        expression = ExpressionInput(data, self.registry, layer)
        if device is not None:
            self.to(device)
        parts = [np.empty((0, self.config.towers.dim), dtype=np.float32)]
        for _, rows in expression.blocks(batch_size or 4096):
            x = torch.from_numpy(rows).to(self.device)
            parts.append(F.normalize(self.towers.encode_expression(x), dim=1).float().cpu().numpy())
        return np.concatenate(parts)
