"""Several models as one: the mean of their images, the spread, and only models that belong together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import sst
from sst.models import Ensemble

sys.path.insert(0, str(Path(__file__).parent))
from test_rivals import N, cells  # noqa: F401


def test_mean_and_spread(cells):  # noqa: F811
    adata = cells.copy()
    models = [sst.tl.fit_rival(adata, "morph", n_max=60, seed=s) for s in range(3)]
    test = (adata.obs["split"] == "test").to_numpy()
    edit = {"genes": ["H2AZ1"], "groupby": "condition", "method": "ot", "subset": test}
    for k, model in enumerate(models):
        sst.tl.edit(adata, **edit, model=model, key_added=f"one{k}")
    sst.tl.edit(adata, **edit, model=models)
    each = np.stack([adata.obsm[f"one{k}"][test] for k in range(3)]).astype(float)
    np.testing.assert_array_equal(adata.obsm["edited"][test], np.rint(each.mean(0)))
    np.testing.assert_allclose(adata.obsm["edited_spread"][test], np.sqrt(each.var(0, ddof=1).mean((2, 3))), rtol=1e-5)
    assert (adata.obsm["edited_spread"][~test] == 0).all()
    assert adata.obsm["edited_spread"][test, 1].mean() > 0.02
    record = adata.uns["edited"]["params"]
    assert record["model_hash"] == Ensemble(models[::-1]).hash
    assert record["model_hash"] not in {m.hash for m in models}


def test_latent_edits_reach_every_model(cells):  # noqa: F811
    adata = cells.copy()
    models = [sst.tl.fit_rival(adata, "nearest", n_cells=n) for n in (50, 60)]
    sst.tl.edit(adata, genes=["B2M"], groupby="condition", method="ot", model=models, latent=True, force=True)
    assert adata.obsm["edited"].shape == (N, 2, 32, 32)


def test_models_that_do_not_belong_together(cells):  # noqa: F811
    morph = sst.tl.fit_rival(cells, "morph")
    with pytest.raises(ValueError, match="at least two"):
        Ensemble([morph])
    with pytest.raises(ValueError, match="differ in kind"):
        Ensemble([morph, sst.tl.fit_rival(cells, "nearest")])
    with pytest.raises(ValueError, match="differ in genes"):
        Ensemble([morph, sst.tl.fit_rival(cells[:, :3].copy(), "morph")])
    ridge = sst.tl.fit_rival(cells, "ridge")
    with pytest.raises(TypeError, match="makes no images"):
        Ensemble([ridge, ridge])
