"""Tiny objects, settings and models that several tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse

from sst.models import GAN, Registry
from sst.models._gan import build_generator
from sst.train import GANConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL_GENERATOR: dict[str, Any] = {
    "generator__channel_base": 64,
    "generator__channel_max": 8,
    "generator__z_dim": 8,
    "generator__w_dim": 8,
    "generator__gene_width": 8,
}
SMALL_NETWORKS = SMALL_GENERATOR | {
    "discriminator__channel_base": 64,
    "discriminator__channel_max": 8,
    "discriminator__embed_dim": 8,
}


def paired_cells(
    n: int = 60,
    genes: int | Sequence[str] = 5,
    side: int = 8,
    *,
    rate: float = 5.0,
    channels: Sequence[str] = ("marker", "DAPI"),
    size: int | None = None,
    pixel_size: float = 0.0,
) -> AnnData:
    """Random counts beside random crops; two groups in turn, every fourth cell held out."""
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(genes)] if isinstance(genes, int) else list(genes)
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate, (n, len(names))).astype(np.float32)))
    adata.var_names = names
    adata.obs_names = [f"c{i}" for i in range(n)]
    adata.obs["condition"] = pd.Categorical(np.array(["normal", "tumor"])[np.arange(n) % 2])
    adata.obs["split"] = np.where(np.arange(n) % 4, "train", "test")
    adata.obsm["crops"] = rng.integers(0, 256, (n, len(channels), side, side), dtype=np.uint8)
    adata.uns["crops"] = {
        "channels": list(channels), "size": size or side, "output_size": side, "pixel_size": pixel_size,
    }  # fmt: skip
    return adata


def small_gan(
    adata: AnnData,
    groupby: str | None = "condition",
    *,
    genes_act: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    **changes: Any,
) -> GAN:
    """An untrained generator for an object; its kernels start at identity and its noise at zero unless they are to act."""
    config = GANConfig.preset("demo").replace(**(SMALL_GENERATOR | changes))
    registry = Registry.from_adata(adata, groupby=groupby)
    torch.manual_seed(seed)
    generator = build_generator(registry, config)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if genes_act and parameter.ndim == 2 and not parameter.any():
                parameter.normal_(std=genes_act)
            if noise and "noise_strength" in name:
                parameter.fill_(noise)
    history = pd.DataFrame({"distance": [2.0, 1.0]}, index=pd.Index([5, 10], name="iteration"))
    return GAN(registry, config, generator, history)
