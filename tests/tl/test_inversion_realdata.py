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

    import anndata as ad

    from sst.models import Inversion

pytestmark = [pytest.mark.realdata, pytest.mark.filterwarnings("ignore")]
FIT = FitConfig(iterations=6, batch_size=8, log_every=3, checkpoint_every=0, evaluate_every=6, sample_every=0)


def train(adata: ad.AnnData, folder: Path) -> Inversion:
    config = GANConfig.preset("demo").replace(generator__channel_base=128, generator__channel_max=16)
    registry = Registry.from_adata(adata, groupby="condition")
    torch.manual_seed(0)
    gan = GAN(registry, config, build_generator(registry, config))
    towers = TowersConfig(dim=16, widths=(8, 8, 16))
    clip = sst.tl.train_clip(adata, config=CLIPConfig(towers=towers, fit=FIT), out=folder / "clip")
    encoder = EncoderConfig(widths=(8, 8, 12, 16), depths=(1, 1, 1, 1), head_width=16)
    config_inversion = InversionConfig(encoder=encoder, fit=FIT)
    return sst.tl.train_inversion(adata, gan=gan, clip=clip, config=config_inversion, out=folder / "inversion")


def test_xenium_from_the_bundle_to_a_region_with_edited_cells(realdata: Path, tmp_path: Path) -> None:
    sdata = sst.pp.read_xenium(realdata / "xenium_breast_v1" / "outs")
    adata = sst.pp.crop_cells(sdata, size=96, output_size=32)
    sst.pp.rescale_intensity(adata)
    x, y = adata.obsm["spatial_px"].T
    adata.obs["split"] = np.where(x < np.quantile(x, 0.8), "train", "test")
    adata.obs["condition"] = np.where(y > np.median(y), "a", "b")
    inversion = train(adata, tmp_path)
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


def test_cosmx_fields_of_view(realdata: Path, tmp_path: Path) -> None:
    sdata = sst.pp.read_cosmx(realdata / "cosmx_lung12" / "Lung12")
    adata = sst.pp.crop_cells(sdata, size=64, output_size=32)
    fovs = sorted(adata.obs["fov"].astype(str).unique())
    adata.obs["condition"] = adata.obs["fov"].astype(str)
    sst.pp.rescale_intensity(adata, groupby="condition")
    inversion = train(adata, tmp_path)
    assert len(inversion.registry.channels) == adata.obsm["crops"].shape[1]
    sst.tl.edit(adata, genes=None, groupby="condition", source=fovs[0], target=fovs[1])
    sst.tl.write_region(sdata, adata, subset={"condition": [fovs[0]]})
    whole = sdata.images[adata.uns["edited_region"]["params"]["image"]]
    assert sdata.images["edited_region"].shape[0] == adata.obsm["crops"].shape[1]
    assert sdata.images["edited_region"].shape[1] <= whole.shape[1]
