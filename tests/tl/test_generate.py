"""``tl.generate``: slots, layers, models that do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from sst.models import GAN, Registry
from sst.models._gan import build_generator
from sst.tl import generate
from sst.train import GANConfig

SMALL = GANConfig.preset("demo").replace(
    generator__channel_base=64,
    generator__channel_max=8,
    generator__z_dim=8,
    generator__w_dim=8,
    generator__gene_width=8,
)


def cells(n=5, genes=("A", "B", "C")):
    rng = np.random.default_rng(0)
    adata = AnnData(
        rng.poisson(3.0, (n, len(genes))).astype(np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)])
    )
    adata.var_names = list(genes)
    adata.obsm["crops"] = np.zeros((n, 1, 8, 8), dtype=np.uint8)
    adata.uns["crops"] = {"channels": ["DAPI"], "size": 8, "output_size": 8, "pixel_size": 0.0}
    return adata


@pytest.fixture
def gan():
    torch.manual_seed(0)
    registry = Registry.from_adata(cells())
    return GAN(registry, SMALL, build_generator(registry, SMALL))


def test_layer_seed_and_record(gan, tmp_path):
    adata = cells()
    adata.layers["edited"] = adata.X * 4
    generate(adata, model=gan)
    generate(adata, model=gan, layer="edited", key_added="edited", seed=0)
    generate(adata, model=gan, key_added="other", seed=1)
    assert not np.array_equal(adata.obsm["edited"], adata.obsm["generated"])
    assert not np.array_equal(adata.obsm["other"], adata.obsm["generated"])
    assert adata.uns["edited"]["params"]["layer"] == "edited"
    assert adata.uns["other"]["params"]["seed"] == 1
    gan.save(tmp_path / "gan")
    generate(adata, model=tmp_path / "gan", key_added="again")
    np.testing.assert_allclose(adata.obsm["again"].astype(int), adata.obsm["generated"], atol=1)
    assert adata.uns["again"]["params"]["model_folder"] == str((tmp_path / "gan").resolve())
    adata.write_h5ad(tmp_path / "a.h5ad")


def test_what_does_not_fit_is_named(gan):
    with pytest.raises(KeyError, match="no image model"):
        generate(cells())
    with pytest.raises(ValueError, match=r"missing \['C'\]; unknown \['D'\]"):
        generate(cells(genes=("A", "B", "D")), model=gan)
    with pytest.raises(KeyError, match="layer='edited'"):
        generate(cells(), model=gan, layer="edited")
    with pytest.raises(KeyError, match="model='elsewhere'"):
        generate(cells(), model="elsewhere")
