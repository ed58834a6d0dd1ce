"""What holds of counterfactuals: a model that does right, and models that break one axiom each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import sst

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from test_rivals import N, cells  # noqa: F401


def _table(adata, axiom, measure, on=""):
    table = adata.uns["counterfactual_axioms"]["table"]
    part = table[(table["axiom"] == axiom) & (table["measure"] == measure) & (table["on"] == on)]
    assert len(part) == 2, (axiom, measure, on)  # a row a group
    return part["value"].to_numpy(float)


@pytest.fixture
def edited(cells):  # noqa: F811
    adata = cells.copy()
    adata.obs["fov"] = (np.arange(N) // 10).astype(str)
    morph = sst.tl.fit_rival(adata, "morph", groupby="condition")
    sst.tl.edit(adata, ["B2M"], groupby="condition", model=morph, method="mean")
    return adata, morph


def test_a_morph_has_them(edited):
    adata, morph = edited
    sst.tl.counterfactual_axioms(adata, model=morph, n_resamples=50)
    assert (_table(adata, "composition", "identical") == 1).all()
    assert (_table(adata, "composition", "psnr") == 100).all()
    share = _table(adata, "effectiveness", "share", "CD298-B2M_window_mean")
    assert (np.abs(share - 1) < 0.25).all()  # it does what the regression says
    assert (_table(adata, "effectiveness", "r", "CD298-B2M_window_mean") > 0.9).all()
    assert (_table(adata, "reversibility", "psnr") > 35).all()  # but for rounding
    assert (_table(adata, "minimality", "outside", "DAPI") == 0).all()  # a gene of the marker alone
    assert set(adata.uns["counterfactual_axioms"]["params"]["n"]) == {"normal", "tumor"}


def test_each_axiom_can_be_broken(edited):
    adata, morph = edited
    crops, good = adata.obsm["crops"], adata.obsm["edited"].copy()

    def measure(images):
        adata.obsm["edited"] = images
        sst.tl.counterfactual_axioms(adata, model=morph, n_resamples=10)

    measure(good)
    background = _table(adata, "minimality", "background_psnr")
    noisy = np.clip(good.astype(int) + np.random.default_rng(0).integers(-60, 60, good.shape), 0, 255).astype(np.uint8)
    measure(noisy)
    assert (_table(adata, "minimality", "background_psnr") < background - 5).all()
    assert (_table(adata, "reversibility", "psnr") < 25).all()
    measure(crops.copy())  # nothing changes at all
    assert (_table(adata, "effectiveness", "share", "CD298-B2M_window_mean") == 0).all()
    adata.uns["edited"]["params"]["model_kind"] = "inversion"
    adata.obsm["generated"] = noisy
    measure(good)
    assert (_table(adata, "composition", "psnr") < 25).all()
    assert (_table(adata, "composition", "identical") == 0).all()


def test_mistakes_are_named(edited):
    adata, morph = edited
    sst.tl.edit(adata, ["B2M"], groupby="condition", model=morph, method="mean", strength=0.0, key_added="still")
    with pytest.raises(ValueError, match="changes none"):
        sst.tl.counterfactual_axioms(adata, "still", model=morph)
    with pytest.raises(KeyError, match="no image model"):
        sst.tl.counterfactual_axioms(adata, model=None)
