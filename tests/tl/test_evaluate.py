from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst
from sst.tl._evaluating import Evaluation, EvaluationOptions
from sst.tl._evaluating._plan import Condition, conditions_of, gene_sets

SIZE = 32


def _draw(counts, names, seed):
    """Images whose marker follows gene 0 and whose nucleus follows gene 1."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    noise = np.stack([np.random.default_rng([seed, *name.encode()]).normal(size=2) for name in names])
    radius = np.clip(4 + 0.25 * counts[:, 1] + 0.2 * noise[:, 0], 3, 11)
    disc = 1 / (1 + np.exp(2 * (np.hypot(y, x)[None] - radius[:, None, None])))
    marker = np.clip(20 + 8 * counts[:, 0] + 3 * noise[:, 1], 0, 255)[:, None, None] + 0 * disc
    return np.clip(np.stack([marker, 20 + 150 * disc], 1), 0, 255).astype(np.uint8)


class FakeModel:
    """Draws exactly what the genes say; an inversion keeps the cell's own picture until it fades."""

    def __init__(self, kind):
        self.hash = f"{kind}-hash"
        self.registry = SimpleNamespace(kind=kind, groupby="condition", check=lambda *_, **__: None)
        self.calls = 0

    def generate(self, data, *, layer=None, seed=0, batch_size=None, progress=None, fade=None, source_layer=None):
        self.calls += len(data)
        counts = np.asarray((data.X if layer is None else data.layers[layer]).todense(), float)
        made = _draw(counts, list(data.obs_names), seed)
        if self.registry.kind != "inversion":
            assert fade is None
            return made
        real = np.asarray(data.obsm["crops"], float)
        return np.rint((1 - fade) * real + fade * made).astype(np.uint8)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    n = 160
    tumor = np.repeat([False, True], n)
    means = np.where(tumor[:, None], [[14, 14, 6, 6, 3]], [[5, 5, 6, 6, 3]])
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(means).astype(np.float32)))
    adata.var_names = ["B2M", "H2AZ1", "APOA1", "TTR", "RBM3"]
    adata.obs_names = [f"c{k}" for k in range(2 * n)]
    adata.obs["condition"] = pd.Categorical(np.where(tumor, "tumor", "normal"))
    adata.obs["split"] = np.where(np.arange(2 * n) % 2, "test", "train")
    adata.obs["fov"] = np.where(tumor, "t", "n") + (np.arange(2 * n) // 2 % 6).astype(str).astype(object)
    adata.obs["type"] = np.where(np.arange(2 * n) % 3 > 0, "Hep", "other")
    adata.obsm["crops"] = _draw(adata.X.toarray(), list(adata.obs_names), 9)
    adata.uns["crops"] = {"channels": ["CD298/B2M", "DAPI"], "pixel_size": 0.5}
    return adata


@pytest.fixture(scope="module")
def evaluated(cells, tmp_path_factory):
    adata = cells.copy()
    out = tmp_path_factory.mktemp("evaluation")
    models = [FakeModel("gan"), FakeModel("inversion")]
    sst.tl.evaluate(
        adata, model=models, genes=["B2M", "H2AZ1"], subset={"type": "Hep"}, method="quantile", repeats=3, out=out
    )
    return adata, out, models


def _one(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    assert len(table) == 1, table
    return table.iloc[0]


def test_all_eight_conditions_both_directions(evaluated):
    adata, _, _ = evaluated
    table = adata.uns["evaluation"]["distances"]
    after = table[table["role"] == "after"][["images", "edit", "cells"]].drop_duplicates()
    assert len(after) == 8
    assert set(table.loc[table["role"] == "control", "edit"]) == {"random", "fade"}
    assert set(zip(table["source"], table["reference"], strict=True)) == {
        (a, b) for a in ("normal", "tumor") for b in ("normal", "tumor")
    }
    assert (table.loc[table["cells"] == "all", "n"] == 40).all()
    assert table["features"].str.startswith("pixel-pca").all()


def test_chosen_genes_work_and_controls_do_not(evaluated):
    adata, _, _ = evaluated
    table = adata.uns["evaluation"]["distances"]
    for images in ("generated", "reconstructed"):
        for cells in ("all", "subset"):
            where = {"images": images, "cells": cells, "source": "normal", "reference": "tumor", "metric": "frechet"}
            chosen, random = _one(table, edit="chosen", **where), _one(table, edit="random", **where)
            before = _one(table, edit="none", **where)
            assert chosen["mean"] < 0.3 * before["mean"]
            assert chosen["change_high"] < 0
            assert before["change"] == 0
            assert abs(random["change"]) < 0.25 * abs(chosen["change"])
    where = {"images": "reconstructed", "cells": "all", "edit": "fade", "metric": "frechet"}
    fade = _one(table, source="normal", reference="tumor", **where)
    assert abs(fade["change"]) < 0.25 * fade["mean"]


def test_morphology_closes_the_gap(evaluated):
    adata, _, _ = evaluated
    table = adata.uns["evaluation"]["morphology"]
    for feature in ("nucleus_area", "CD298-B2M_window_mean"):
        where = {"images": "generated", "cells": "all", "source": "normal", "target": "tumor", "feature": feature}
        chosen, random = _one(table, edit="chosen", **where), _one(table, edit="random", **where)
        assert chosen["gap_closed"] == pytest.approx(1, abs=0.25)
        assert chosen["change_low"] <= chosen["change"] <= chosen["change_high"]
        assert chosen["change"] == pytest.approx(chosen["after"] - chosen["before"], rel=1e-3)
        assert abs(random["gap_closed"]) < 0.1
        assert chosen["n_fields"] == 6
        assert chosen["p"] < 1e-4 < random["p"] or random["change"] == 0
        assert chosen["p"] <= chosen["q"] <= 1
        assert chosen["cliffs_delta"] > 0.8
    back = _one(
        table, images="generated", cells="all", source="tumor", target="normal", feature="nucleus_area", edit="all"
    )
    assert back["change"] < 0


def test_reconstruction_quality(evaluated):
    adata, _, _ = evaluated
    table = adata.uns["evaluation"]["reconstruction"]
    row = _one(table, metric="ssim", channel="all", group="all", cells="all")
    assert row["mean"] == pytest.approx(1)  # the fake copies the picture
    assert set(table["channel"]) == {"CD298/B2M", "DAPI", "all"}


def test_resumes_and_refuses_other_settings(evaluated, cells):
    adata, out, models = evaluated
    before = [m.calls for m in models]
    again = cells.copy()
    options = {"genes": ["B2M", "H2AZ1"], "subset": {"type": "Hep"}, "method": "quantile", "repeats": 3, "out": out}
    sst.tl.evaluate(again, model=models, **options)
    assert [m.calls for m in models] == before
    for name in ("distances", "morphology", "reconstruction"):
        a, b = adata.uns["evaluation"][name], again.uns["evaluation"][name]
        pd.testing.assert_frame_equal(a, b, check_exact=False, check_dtype=False, rtol=1e-9)
        assert len(pd.read_csv(out / f"{name}.csv")) == len(a)
    (out / "parts" / "generated-all-all.done").unlink()
    sst.tl.evaluate(again, model=models, **options)
    assert models[0].calls > before[0]
    assert models[1].calls == before[1]
    pd.testing.assert_frame_equal(
        again.uns["evaluation"]["distances"], adata.uns["evaluation"]["distances"], check_dtype=False, rtol=1e-9
    )
    with pytest.raises(ValueError, match="holds another evaluation .*seed"):
        sst.tl.evaluate(again, model=models, **options, seed=1)


def test_survives_writing(evaluated, tmp_path):
    adata, _, _ = evaluated
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    back = ad.read_h5ad(tmp_path / "a.h5ad").uns["evaluation"]
    assert len(back["distances"]) == len(adata.uns["evaluation"]["distances"])
    assert list(back["params"]["genes"]["chosen"]) == ["B2M", "H2AZ1"]
    assert len(ad.read_zarr(tmp_path / "a.zarr").uns["evaluation"]["morphology"]) > 0


def test_one_model_no_genes_no_subset(cells, caplog):
    adata = cells.copy()
    del adata.obs["split"]
    with caplog.at_level("WARNING", logger="sst"):
        sst.tl.evaluate(adata, model=FakeModel("gan"), repeats=1, method="quantile", metrics=["frechet"], n_measured=10)
    assert "evaluating on all cells" in caplog.text
    table = adata.uns["evaluation"]["distances"]
    assert set(table["edit"]) == {"none", "all"}
    assert "reconstruction" not in adata.uns["evaluation"]


def test_a_rival_is_fitted_beside_the_model(cells):
    adata = cells.copy()
    options = {"repeats": 1, "method": "quantile", "metrics": ["frechet"], "n_measured": 10}
    sst.tl.evaluate(adata, model=FakeModel("gan"), rival="nearest", **options)
    assert set(adata.uns["evaluation"]["distances"]["images"]) >= {"generated", "nearest cell"}
    with pytest.raises(ValueError, match="rival='lasso'"):
        sst.tl.evaluate(adata, model=FakeModel("gan"), rival="lasso", **options)


def test_errors(cells):
    with pytest.raises(KeyError, match="no image model was trained"):
        sst.tl.evaluate(cells.copy())
    with pytest.raises(KeyError, match="'B2N'"):
        sst.tl.evaluate(cells.copy(), model=FakeModel("gan"), genes=["B2N"])
    with pytest.raises(ValueError, match="control='null'"):
        sst.tl.evaluate(cells.copy(), model=FakeModel("gan"), controls=["null"])
    few = cells[[1, 3, 5, 161, 163, 165]].copy()
    with pytest.raises(ValueError, match="at least 4"):
        sst.tl.evaluate(few, model=FakeModel("gan"))


def test_random_control_is_as_expressed(cells):
    sets = gene_sets(cells, ["RBM3"], ["random"], cells.X, learn=np.ones(cells.n_obs, bool), seed=0)
    assert list(sets) == ["chosen", "all", "random"]
    assert sets["random"][0] != "RBM3"
    names = [c.name for c in conditions_of(["reconstructed"], ["all"], ["all"], ["fade"])]
    assert names == ["reconstructed-none-all", "reconstructed-all-all", "reconstructed-fade-all"]
    assert Condition("generated", "random", "all").role == "control"


def test_random_control_is_drawn_from_the_layer_that_is_edited():
    """Genes that are as expressed as the chosen one in the layer, whatever X says."""
    rng = np.random.default_rng(0)
    means = {"X": np.arange(1, 21), "counts": np.r_[20, np.arange(1, 15), 15, 16, 17, 18, 19]}
    adata = ad.AnnData(rng.poisson(means["X"], (400, 20)).astype(np.float32))
    adata.layers["counts"] = rng.poisson(means["counts"], (400, 20)).astype(np.float32)
    adata.obs["condition"] = pd.Categorical(np.repeat(["a", "b"], 200))
    adata.obs["split"] = np.where(np.arange(400) % 2, "test", "train")
    adata.obsm["crops"] = np.zeros((400, 1, 8, 8), np.uint8)
    adata.uns["crops"] = {"channels": ["DAPI"], "size": 8}
    options = EvaluationOptions(
        method="mean", top_k=1, layer="counts", n_max=10, repeats=1, metrics=("frechet",), controls=("random",), n_measured=2,
        lpips_weights=None, nucleus_channel=None, level=0.95, seed=0, batch_size=None, device=None,
    )  # fmt: skip
    plan = Evaluation.plan(
        adata, options, model=FakeModel("gan"), genes=["0"], subset=None, groupby=None, features="pixel-pca"
    )
    assert set(plan.edits["random"]) <= {"15", "16", "17", "18", "19"}


def test_p_is_over_fields_not_cells():
    """Two hundred cells of three fields that differ: cells alone would be sure of an effect that is one field's."""
    from scipy.stats import ttest_1samp

    from sst.tl._evaluating._donors import over_fields

    rng = np.random.default_rng(0)
    fields = np.repeat(["a", "b", "c", "d"], 50)
    values = np.where(fields == "a", 2.0, 0.0) + rng.normal(0, 0.1, 200)
    values[3] = np.nan
    p, n = over_fields(values, fields)
    assert n == 4
    means = [np.nanmean(values[fields == f]) for f in "abcd"]
    assert p == pytest.approx(ttest_1samp(means, 0).pvalue)
    assert p > 0.1
    assert ttest_1samp(values[np.isfinite(values)], 0).pvalue < 1e-10
    assert over_fields(np.zeros(4), np.arange(4)) == (1.0, 4)
    assert np.isnan(over_fields(values[:100], fields[:100])[0])


def test_intervals_are_over_donors_and_learnt_from_each(cells, tmp_path):
    """Donors' own levels of a gene widen the interval over donors; each donor's change is told."""
    adata = cells.copy()
    donor = np.arange(adata.n_obs) // 2 % 4
    adata.obs["donor"] = [f"{g[0]}{d}" for g, d in zip(adata.obs["condition"], donor, strict=True)]
    counts = adata.X.toarray()
    counts[:, 0] += np.where(adata.obs["condition"] == "tumor", 0, donor)  # of the normal donors, 0 to 3 more
    adata.X = sp.csr_matrix(counts)
    adata.obsm["crops"] = _draw(counts, list(adata.obs_names), 9)
    options = {"model": FakeModel("gan"), "genes": ["B2M"], "method": "mean", "repeats": 1, "metrics": ["d_eig"]}
    sst.tl.evaluate(adata, batch_key="donor", out=tmp_path / "donors", **options)
    sst.tl.evaluate(adata, key_added="pooled", **options)
    where = {"edit": "chosen", "source": "normal", "target": "tumor", "feature": "CD298-B2M_window_mean"}
    row = _one(adata.uns["evaluation"]["morphology"], **where)
    each = adata.uns["evaluation"]["donors"]
    each = each[np.logical_and.reduce([each[k] == v for k, v in where.items()])].set_index("donor")
    assert list(each.index) == ["n0", "n1", "n2", "n3"]
    assert np.polyfit(range(4), each["change"], 1)[0] == pytest.approx(-8, abs=3)  # 8 grey values a count
    assert row["n_donors"] == 4
    assert row["change"] == pytest.approx(each["change"].mean())
    pooled = _one(adata.uns["pooled"]["morphology"], **where)
    assert row["change_high"] - row["change_low"] > 2 * (pooled["change_high"] - pooled["change_low"])
    assert row["gap_low"] < row["gap"] < row["gap_high"]
    assert "n_donors" not in pooled.index
    assert "donors" not in adata.uns["pooled"]
    assert (tmp_path / "donors" / "donors.csv").exists()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="batch_key"):
        sst.tl.evaluate(adata, out=tmp_path / "donors", **options)
    with pytest.raises(KeyError, match="batch_key"):
        sst.tl.evaluate(adata, batch_key="slide", **options)
