from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

import sst

SIZE, N = 32, 90


def _draw(marker, area, seed):
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    rng = np.random.default_rng(seed)
    radius = np.sqrt(area / np.pi)
    disc = 1 / (1 + np.exp(2 * (np.hypot(y, x)[None] - radius[:, None, None])))
    level = np.clip(marker + rng.normal(0, 2, len(marker)), 0, 255)[:, None, None] + 0 * disc
    return np.clip(np.stack([level, 20 + 150 * disc], 1), 0, 255).astype(np.uint8)


class FakeClip:
    """An image's embedding is its brightness and area as angles; an expression's the same of what it causes."""

    hash = "clip"

    def embed_images(self, images, **_):
        marker, area = images[:, 0].mean((1, 2)), images[:, 1].astype(float).mean((1, 2))
        return self._unit(marker / 10, (area - 20) / 150 * SIZE**2 / 12)

    def embed_expression(self, data, *, layer=None, **_):
        counts = np.asarray((data.X if layer is None else data.layers[layer]).todense(), float)
        return self._unit((20 + 8 * counts[:, 0]) / 10, (60 + 5 * counts[:, 1]) / 12)

    @staticmethod
    def _unit(a, b):
        out = np.stack([np.cos(a / 8), np.sin(a / 8), np.cos(b / 8), np.sin(b / 8)], 1)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    tumor = np.repeat([False, True], N)
    counts = rng.poisson(np.where(tumor[:, None], [[12, 16, 8]], [[5, 6, 8]])).astype(float)
    edited = counts.copy()
    edited[:, 0] = np.where(tumor, counts[:, 0] / 2.4, counts[:, 0] * 2.4)
    adata = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))
    adata.var_names = ["B2M", "H2AZ1", "APOA1"]
    adata.obs_names = [f"c{k}" for k in range(2 * N)]
    adata.obs["condition"] = pd.Categorical(np.where(tumor, "tumor", "normal"))
    adata.obs["split"] = "test"
    adata.layers["edited"] = sp.csr_matrix(edited.astype(np.float32))
    adata.obsm["crops"] = _draw(20 + 8 * counts[:, 0], 60 + 5 * counts[:, 1], 1)
    adata.obsm["generated"] = _draw(20 + 8 * counts[:, 0], 60 + 5 * counts[:, 1], 2)
    adata.obsm["edited"] = _draw(20 + 8 * edited[:, 0], 60 + 5 * edited[:, 1], 3)
    adata.uns["crops"] = {"channels": ["CD298/B2M", "DAPI"], "pixel_size": 0.0}
    adata.uns["edited"] = {"params": {"groupby": "condition", "genes": ["B2M"]}}
    return adata


def test_correlations_within_groups(cells, tmp_path):
    sst.tl.fidelity(cells, genes=["B2M", "APOA1"], clip=None)
    entry = cells.uns["fidelity"]
    table = entry["correlations"].set_index(["gene", "feature", "group", "key"])
    row = table.loc["B2M", "CD298-B2M_window_mean", "tumor", "generated"]
    tumor = (cells.obs["condition"] == "tumor").to_numpy()
    marker = cells.obs["generated_CD298-B2M_window_mean"].to_numpy()[tumor]
    assert row["rho"] == pytest.approx(spearmanr(cells.X[tumor, 0].toarray().ravel(), marker).statistic)
    assert row["low"] < row["rho"] < row["high"]
    assert row["rho"] > 0.9
    assert abs(table.loc["APOA1", "CD298-B2M_window_mean", "tumor", "generated"]["rho"]) < 0.4
    assert (entry["agreement"]["correlation"] > 0.8).all()
    assert "round_trip" not in entry
    cells.write_h5ad(tmp_path / "a.h5ad")
    assert len(ad.read_h5ad(tmp_path / "a.h5ad").uns["fidelity"]["correlations"]) == len(table)


def test_a_generator_that_ignores_its_genes_is_found_out(cells):
    rng = np.random.default_rng(0)
    tumor = (cells.obs["condition"] == "tumor").to_numpy()
    order = np.concatenate([rng.permutation(np.flatnonzero(~tumor)), rng.permutation(np.flatnonzero(tumor))])
    cells.obsm["generated"] = cells.obsm["generated"][order]  # the right images of the wrong cells
    sst.tl.fidelity(cells, clip=None)
    table = cells.uns["fidelity"]["correlations"]
    marker = table[table["feature"] == "CD298-B2M_window_mean"]
    assert (marker.loc[marker["key"] == "crops", "rho"] > 0.9).all()
    assert (marker.loc[marker["key"] == "generated", "rho"].abs() < 0.35).all()


def test_round_trip_prefers_the_edited_expression(cells):
    sst.tl.fidelity(cells, clip=FakeClip(), n_candidates=60)
    table = cells.uns["fidelity"]["round_trip"].set_index("key")
    assert list(table.index) == ["crops", "generated", "edited"]
    assert table.loc["edited", "prefers_edited"] > 0.9
    assert (table["top1"] > 5 * table["chance_top1"]).all()
    assert (table["median_rank"] < 0.1).all()
    cells.obsm["edited"] = cells.obsm["generated"]  # an edit that shows nothing
    sst.tl.fidelity(cells, clip=FakeClip(), n_candidates=60)
    assert cells.uns["fidelity"]["round_trip"].set_index("key").loc["edited", "prefers_edited"] < 0.2


def test_against_the_truth(cells):
    counts = np.asarray(cells.layers["edited"].todense(), float)
    truth = _draw(20 + 8 * counts[:, 0], 60 + 5 * counts[:, 1], 1)
    sst.tl.fidelity(cells, clip=None, truth=truth)
    table = cells.uns["fidelity"]["truth"]
    assert (table["psnr"] > table["psnr_unedited"] + 5).all()
    assert (table["ssim"] > table["ssim_unedited"]).all()
    assert table["CD298-B2M_window_mean_recovered"].to_numpy() == pytest.approx(1, abs=0.05)
    cells.obsm["truth"] = truth
    sst.tl.fidelity(cells, clip=None, truth="truth", n_max=20)
    assert (cells.uns["fidelity"]["truth"]["n"] == 20).all()
    with pytest.raises(ValueError, match="truth: expected images of shape"):
        sst.tl.fidelity(cells, clip=None, truth=truth[:3])


def test_defaults_and_errors(cells):
    cells.uns["edited"] = {"params": {}}
    sst.tl.fidelity(cells, clip=None)
    assert set(cells.uns["fidelity"]["params"]["genes"]) == {"B2M", "H2AZ1", "APOA1"}
    with pytest.raises(KeyError, match="key='other'"):
        sst.tl.fidelity(cells, "other")
    with pytest.raises(KeyError, match="'XYZ'"):
        sst.tl.fidelity(cells, genes=["XYZ"])


def test_correlations_are_within_donors(cells):
    """A donor with more of a gene and a brighter lamp makes a correlation that is in none of the donors."""
    donor = np.arange(2 * N) % 3
    cells.obs["donor"] = [f"d{k}" for k in donor]
    counts = cells.X.toarray()
    counts[:, 2] += 10 * donor  # APOA1 causes nothing
    cells.X = sp.csr_matrix(counts)
    lamp = np.clip(cells.obsm["crops"].astype(float) + 60.0 * donor[:, None, None, None], 0, 255)
    cells.obsm["crops"] = lamp.astype(np.uint8)
    options = {"genes": ["APOA1"], "features": ["CD298-B2M_window_mean"], "clip": None}
    sst.tl.fidelity(cells, **options)
    sst.tl.fidelity(cells, batch_key="donor", key_added="within", **options)
    pooled, within = (
        cells.uns[k]["correlations"].set_index(["group", "key"]).loc[("tumor", "crops")] for k in ("fidelity", "within")
    )
    assert pooled["rho"] > 0.5
    assert abs(within["rho"]) < 0.3
    assert within["n_donors"] == 3
    assert within["low"] < within["rho"] < within["high"]
    assert "n_donors" not in cells.uns["fidelity"]["correlations"]
    with pytest.raises(KeyError, match="batch_key"):
        sst.tl.fidelity(cells, batch_key="slide", **options)


def test_truth_of_each_donor(cells, tmp_path):
    cells.obs["donor"] = [f"d{k}" for k in np.arange(2 * N) % 2]
    sst.tl.fidelity(cells, clip=None, truth="edited", batch_key="donor")
    each = cells.uns["fidelity"]["donors"]
    assert list(zip(each["source"], each["donor"], strict=True)) == [
        (g, d) for g in ("normal", "tumor") for d in ("d0", "d1")
    ]
    assert (each["n"] == N // 2).all()
    cells.write_h5ad(tmp_path / "a.h5ad")


def test_p_of_a_correlation_is_over_fields():
    """Fields differ in light and in a gene: within them nothing goes with it, and six fields are no proof."""
    from sst.tl._fidelity import _correlation

    rng = np.random.default_rng(1)
    fields = np.repeat(np.arange(6), 80)
    x, y = (rng.normal(0, 1, 6)[fields] + rng.normal(0, 0.3, 480) for _ in range(2))
    over, alone = _correlation(x, y, fields), _correlation(x, y)
    assert over["rho"] == alone["rho"]
    assert (over["n_fields"], alone["n_fields"]) == (6, 0)
    assert over["high"] - over["low"] > 2 * (alone["high"] - alone["low"])
    assert over["p"] > 30 * alone["p"]
