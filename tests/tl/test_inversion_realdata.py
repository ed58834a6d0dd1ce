from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import sst
from sst.models import GAN, Registry
from sst.models._gan import build_generator
from sst.train import CLIPConfig, EncoderConfig, FitConfig, GANConfig, InversionConfig, TowersConfig

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.realdata, pytest.mark.filterwarnings("ignore")]
FIT = FitConfig(iterations=6, batch_size=8, log_every=3, checkpoint_every=0, evaluate_every=6, sample_every=0)


def test_xenium_from_the_bundle_to_a_region_with_edited_cells(realdata: Path, tmp_path: Path) -> None:
    sdata = sst.pp.read_xenium(realdata / "xenium_breast_v1" / "outs")
    adata = sst.pp.crop_cells(sdata, size=96, output_size=32)
    sst.pp.rescale_intensity(adata)
    x = adata.obsm["spatial_px"][:, 0]
    adata.obs["split"] = np.where(x < np.quantile(x, 0.8), "train", "test")
    adata.obs["condition"] = np.where(
        adata.obsm["spatial_px"][:, 1] > np.median(adata.obsm["spatial_px"][:, 1]), "a", "b"
    )
    config = GANConfig.preset("demo").replace(generator__channel_base=128, generator__channel_max=16)
    registry = Registry.from_adata(adata, groupby="condition")
    torch.manual_seed(0)
    gan = GAN(registry, config, build_generator(registry, config))
    towers = TowersConfig(dim=16, widths=(8, 8, 16))
    clip = sst.tl.train_clip(adata, config=CLIPConfig(towers=towers, fit=FIT), out=tmp_path / "clip")
    encoder = EncoderConfig(widths=(8, 8, 12, 16), depths=(1, 1, 1, 1), head_width=16)
    inversion = sst.tl.train_inversion(
        adata, gan=gan, clip=clip, config=InversionConfig(encoder=encoder, fit=FIT), out=tmp_path / "inversion"
    )
    assert set(inversion.metrics) == {"psnr", "ssim", "psnr DAPI", "ssim DAPI"}
    sst.tl.edit(adata, genes=None, groupby="condition", source="a", target="b")
    assert {"edited", "edited_fade_only", "edited_genes_only", "generated"} <= set(adata.obsm)
    da = sst.tl.transition(adata, steps=3, n_cells=4)
    assert da.shape == (3, 4, 1, 32, 32)
    sst.tl.identity(adata)
    assert np.isfinite(adata.obs["edited_identity"]).all()
    sst.tl.write_region(sdata, adata, bounds=(100, 100, 400, 420), subset={"condition": ["a"]})
    assert sdata.images["edited_region"].shape == (1, 320, 300)
    sdata.write(tmp_path / "slide.zarr")
