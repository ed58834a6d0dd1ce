"""``tl.generate``: slots, layers, models that do not fit."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from factories import paired_cells, small_gan

import sst
from sst.tl import generate


def cells(n=5, genes=("A", "B", "C")):
    adata = paired_cells(n, genes, rate=3.0, channels=["DAPI"])
    adata.X = adata.X.toarray()
    adata.obsm["crops"][:] = 0
    return adata


@pytest.fixture
def gan():
    return small_gan(cells(), groupby=None)


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


def test_expression_lower_than_any_that_was_learnt_is_said(gan, caplog):
    """What is drawn is not what is asked for: the count that the fewest training cells had, not none."""
    adata = cells(40)
    gan.generator.transform.set_range(np.array([2.0, 0, 0]), np.array([50.0] * 3))
    sst.tl.edit(adata, genes=["A", "B"], method="knockout", model=None)
    with caplog.at_level(logging.WARNING, logger="sst"):
        generate(adata, model=gan)
        assert "drawn with that many" not in caplog.text
        generate(adata, model=gan, layer="edited", key_added="drawn")
    assert "A (as 2): more than 1 % of the cells are to have fewer counts" in caplog.text


def test_what_does_not_fit_is_named(gan):
    with pytest.raises(KeyError, match="no image model"):
        generate(cells())
    with pytest.raises(ValueError, match=r"missing \['C'\]; unknown \['D'\]"):
        generate(cells(genes=("A", "B", "D")), model=gan)
    with pytest.raises(KeyError, match="layer='edited'"):
        generate(cells(), model=gan, layer="edited")
    with pytest.raises(KeyError, match="model='elsewhere'"):
        generate(cells(), model="elsewhere")
