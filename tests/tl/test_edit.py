from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst
from sst import editing

GENES = [f"g{i}" for i in range(12)]


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    profiles = np.random.default_rng(1).gamma(1.0, 3.0, (2, 12))
    X = np.vstack([rng.poisson(profiles[g] * rng.gamma(4, 0.25, (150, 1))) for g in (0, 1)])
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(np.repeat(["normal", "tumor"], 150)),
            "cellType": pd.Categorical(rng.choice(["a", "b/c"], 300)),
            "split": rng.choice(["train", "test"], 300, p=[0.7, 0.3]),
            "area": rng.random(300),
        },
        index=[f"cell{i}" for i in range(300)],
    )
    return ad.AnnData(sp.csr_matrix(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES))


class Model:
    """Images that show the first gene, and a texture that depends on the cell's name and the seed."""

    hash = "abc123"
    folder = None

    def __init__(self, kind: str = "gan") -> None:
        self.registry = SimpleNamespace(
            kind=kind, groupby="condition", check=lambda *_, **__: None, channels=("a", "b"), output_size=4
        )
        self.calls: list[dict[str, Any]] = []

    def generate(
        self, data: ad.AnnData, *, layer: str | None = None, seed: int = 0, batch_size=None, **more
    ) -> np.ndarray:
        self.calls.append({"n": data.n_obs, "layer": layer, "seed": seed, **more})
        X = data.X if layer is None else data.layers[layer]
        first = np.asarray(X[:, [0]].todense()).reshape(-1, 1, 1, 1)
        noise = np.array([(hash((name, seed)) % 100) for name in data.obs_names]).reshape(-1, 1, 1, 1)
        return np.broadcast_to(np.clip(first + noise, 0, 255), (data.n_obs, 2, 4, 4)).astype(np.uint8)


def dense(X: Any) -> np.ndarray:
    X = X.compute() if hasattr(X, "compute") else X
    return X.toarray() if sp.issparse(X) else np.asarray(X)


@pytest.mark.parametrize("method", [None, "scm"])
def test_each_cell_goes_toward_the_other_group(adata: ad.AnnData, method: str | None) -> None:
    """By optimal transport, unless the paper's method is asked for."""
    sst.tl.edit(adata, **({} if method is None else {"method": method}))
    out = adata.layers["edited"]
    assert sp.issparse(out)
    assert out.format == "csr"
    assert out.dtype == np.float32
    assert out.min() >= 0
    X = dense(adata.X)
    train = (adata.obs["split"] == "train").to_numpy()
    label = adata.obs["condition"].to_numpy()
    for a, b in (("normal", "tumor"), ("tumor", "normal")):
        operator = editing.OT() if method is None else editing.SCM(top_k=1)
        fitted = operator.fit(X[train & (label == a)], X[train & (label == b)])
        np.testing.assert_allclose(dense(out)[label == a], fitted.apply(X[label == a]), atol=1e-4)
    assert "edited" not in adata.obsm
    report = adata.uns["edited"]["report"]
    table = report["directions"]
    assert table["source"].tolist() == ["normal", "tumor"]
    assert table["n_cells"].tolist() == [150, 150]
    assert table["n_fit_source"].tolist() == [int((train & (label == g)).sum()) for g in ("normal", "tumor")]
    assert (table["moment_error_after"] < table["moment_error_before"]).all()
    assert report["genes"].shape == (24, 6)


def test_ot_meets_the_moments_it_reports(adata: ad.AnnData) -> None:
    sst.tl.edit(adata, method="ot", clip=False, fit_on="all", model=None)
    table = adata.uns["edited"]["report"]["directions"]
    assert (table["moment_error_after"] < 1e-6).all()
    assert (table["clipped_share"] == 0).all()


@pytest.mark.parametrize("form", ["dense", "csr", "dask", "int"])
def test_genes_and_cells_left_out_keep_their_values(adata: ad.AnnData, form: str) -> None:
    before = dense(adata.X)
    adata.X = {
        "dense": lambda: before,
        "csr": lambda: adata.X,
        "dask": lambda: da.from_array(before, chunks=(70, 12)),
        "int": lambda: sp.csr_matrix(before.astype(np.int32)),
    }[form]()
    sst.tl.edit(adata, ["g3", "g1"], source="tumor", target="normal", subset="area > 0.5", method="quantile")
    out = dense(adata.layers["edited"])
    assert out.dtype == np.float32
    cells = ((adata.obs["condition"] == "tumor") & (adata.obs["area"] > 0.5)).to_numpy()
    np.testing.assert_array_equal(out[~cells], before[~cells])
    others = [0, 2, *range(4, 12)]
    np.testing.assert_array_equal(out[:, others], before[:, others])
    assert (out[cells][:, [1, 3]] != before[cells][:, [1, 3]]).any()
    assert adata.uns["edited"]["report"]["directions"]["n_cells"].tolist() == [cells.sum()]


def test_subset_forms(adata: ad.AnnData) -> None:
    mask = (adata.obs["cellType"] == "b/c").to_numpy()
    results = []
    for subset in (mask, "cellType == 'b/c'", {"cellType": ["b/c"]}):
        sst.tl.edit(adata, subset=subset)
        results.append(dense(adata.layers["edited"]))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[0][~mask], dense(adata.X)[~mask])
    sst.tl.edit(adata, subset=mask, fit_subset=mask)
    assert not np.array_equal(dense(adata.layers["edited"]), results[0])


class Shifted(editing.Fitted):
    def __init__(self, by: np.ndarray) -> None:
        self.by = by

    def values(self, block: Any, old: np.ndarray, genes: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        return old + self.by[slice(None) if genes is None else genes].astype(old.dtype)


class MaximumMatched:
    """An operator of the user's own; what it knows of a group is a plain array."""

    def summarize(self, X: Any, *, batch_size: int = 64) -> np.ndarray:
        return np.max([editing.take_rows(X, rows).max(axis=0) for rows, _ in editing.iter_rows(X, batch_size)], axis=0)

    def fit(self, source: np.ndarray, target: np.ndarray) -> Shifted:
        return Shifted(target - source)


def test_an_operator_of_ones_own(adata: ad.AnnData) -> None:
    sst.tl.edit(adata, ["g0", "g3"], source="normal", target="tumor", method=MaximumMatched(), fit_on="all")
    X, edited = dense(adata.X), dense(adata.layers["edited"])
    np.testing.assert_allclose(edited[:150, [0, 3]].max(axis=0), X[150:, [0, 3]].max(axis=0))


def test_prescribed_methods(adata: ad.AnnData) -> None:
    X = dense(adata.X)
    sst.tl.edit(adata, "g0", method="knockout", key_added="ko")
    assert dense(adata.layers["ko"])[:, 0].max() == 0
    sst.tl.edit(adata, ["g0", "g1"], method="scale", value={"g1": 3.0}, key_added="up", subset={"condition": "tumor"})
    np.testing.assert_array_equal(dense(adata.layers["up"])[150:, 1], 3 * X[150:, 1])
    np.testing.assert_array_equal(dense(adata.layers["up"])[:150], X[:150])
    sst.tl.edit(adata, "g2", method="set", value=5, source="normal", groupby="condition", key_added="set")
    assert (dense(adata.layers["set"])[:150, 2] == 5).all()
    np.testing.assert_array_equal(dense(adata.layers["set"])[150:], X[150:])
    adata.layers["scgen"] = np.random.default_rng(0).random(adata.shape)
    sst.tl.edit(adata, ["g4"], method="from_layer", value="scgen", key_added="theirs", subset="area < 0.3")
    np.testing.assert_allclose(
        dense(adata.layers["theirs"])[(adata.obs["area"] < 0.3).to_numpy(), 4],
        adata.layers["scgen"][(adata.obs["area"] < 0.3).to_numpy(), 4],
        rtol=1e-6,
    )


@pytest.mark.parametrize(("method", "value"), [("set", {"g1": 7.0}), ("scale", {"g1": 3.0, "g4": 0.5})])
def test_a_value_by_gene_edits_the_named_genes_alone(adata: ad.AnnData, method: str, value: dict[str, float]) -> None:
    X = dense(adata.X)
    sst.tl.edit(adata, method=method, value=value)
    after = dense(adata.layers["edited"])
    for g, gene in enumerate(adata.var_names):
        number = value.get(gene)
        expected = X[:, g] if number is None else np.full(300, number) if method == "set" else number * X[:, g]
        np.testing.assert_allclose(after[:, g], expected)
    assert list(adata.uns["edited"]["params"]["genes"]) == list(value)
    before = after.copy()
    sst.tl.replay(adata)
    np.testing.assert_array_equal(dense(adata.layers["edited"]), before)


def test_images_before_and_after(adata: ad.AnnData) -> None:
    model = Model()
    sst.tl.edit(adata, ["g0"], source="normal", target="tumor", model=model, seed=3)
    before, after = adata.obsm["generated"], adata.obsm["edited"]
    assert before.shape == after.shape == (300, 2, 4, 4)
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(after[150:], before[150:])
    assert (after[:150] != before[:150]).any()
    assert [c["n"] for c in model.calls] == [300, 150]
    sst.tl.edit(adata, ["g1"], model=model, seed=3, key_added="second")
    assert [c["n"] for c in model.calls] == [300, 150, 300]  # the unedited images are there already
    sst.tl.edit(adata, ["g1"], model=model, seed=4, key_added="second")
    assert len(model.calls) == 5
    assert adata.uns["edited"]["report"]["model_hash"] == "abc123"


def test_reconstructions_keep_fading_and_genes_apart(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(model, cells, layer, fade, *, source_layer, batch_size) -> dict[str, np.ndarray]:
        before, after = (model.generate(cells, layer=k) for k in (source_layer, layer))
        dark = np.uint8(10 * fade)
        return {"reconstructed": before, "fade_only": before + dark, "genes_only": after, "both": after + dark}

    monkeypatch.setattr("sst.models.effects_apart", apart)
    sst.tl.edit(adata, ["g0"], source="tumor", target="normal", model=Model("inversion"), fade=0.5)
    images = {k: adata.obsm[k].astype(int) for k in ("generated", "edited", "edited_fade_only", "edited_genes_only")}
    for k in images:
        np.testing.assert_array_equal(images[k][:150], images["generated"][:150])
    np.testing.assert_array_equal(images["edited_fade_only"][150:], images["generated"][150:] + 5)
    np.testing.assert_array_equal(images["edited"][150:], images["edited_genes_only"][150:] + 5)


def test_no_model_is_no_error(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sst"):
        sst.tl.edit(adata)
    assert "no model was trained" in caplog.text


@pytest.mark.parametrize("form", ["memory", "h5ad", "zarr"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "scm", "top_k": None, "strength": 0.5, "clip": False},
        {"genes": ["g2", "g7"], "method": "ot", "subset": {"cellType": ["b/c"]}, "fit_subset": {"cellType": ["b/c"]}},
        {"source": "tumor", "target": "normal", "method": "quantile", "subset": "area > 0.2", "fit_on": "all"},
        {"genes": "g1", "method": "set", "value": {"g1": 4}, "subset": "mask"},
        {"method": "from_layer", "value": "theirs"},
        {"method": editing.Mean(mode="scale"), "genes": {"set": ["g1", "g2", "elsewhere"]}},
        {"method": editing.SCM(top_k=None, tie=1e-3)},
    ],
)
def test_replay(adata: ad.AnnData, options: dict[str, Any], form: str, tmp_path) -> None:
    if options.get("subset") == "mask":
        options = options | {"subset": np.arange(300) % 3 == 0}
    adata.layers["theirs"] = sp.csr_matrix(dense(adata.X) * 2)
    sst.tl.edit(adata, **options)
    expected = dense(adata.layers["edited"])
    if form == "h5ad":
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad")
    elif form == "zarr":
        adata.write_zarr(tmp_path / "a.zarr")
        adata = ad.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(dense(adata.layers["edited"]), expected)
    assert "directions" in adata.uns["edited"]["report"]
    sst.tl.replay(adata, "edited", key_added="again")
    np.testing.assert_array_equal(dense(adata.layers["again"]), expected)
    sst.tl.replay(adata, "again")
    np.testing.assert_array_equal(dense(adata.layers["again"]), expected)


def test_replay_wants_the_same_model_and_counts(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    sst.tl.edit(adata, ["g0"], model=Model())
    with pytest.raises(ValueError, match="abc123"):
        sst.tl.replay(adata)
    sst.tl.replay(adata, model=Model())
    adata.X = adata.X * 2
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.replay(adata, model=None)
    assert "counts have changed" in caplog.text
    with pytest.raises(KeyError, match="nothing"):
        sst.tl.replay(adata, "nothing")


def test_copy_and_spatialdata(adata: ad.AnnData) -> None:
    out = sst.tl.edit(adata, copy=True)
    assert "edited" in out.layers
    assert "edited" not in adata.layers
    import spatialdata

    sdata = spatialdata.SpatialData(tables={"table": adata})
    assert sst.tl.edit(sdata) is None
    assert "edited" in sdata["table"].layers


def test_more_than_two_groups(adata: ad.AnnData) -> None:
    adata.obs["condition"] = pd.Categorical(np.resize(["x", "y", "z"], 300))
    with pytest.raises(ValueError, match="3 groups.*target="):
        sst.tl.edit(adata)
    sst.tl.edit(adata, target="z")
    assert adata.uns["edited"]["report"]["directions"]["source"].tolist() == ["x", "y"]
    keep = (adata.obs["condition"] == "z").to_numpy()
    np.testing.assert_array_equal(dense(adata.layers["edited"])[keep], dense(adata.X)[keep])


def test_order_of_cells_does_not_matter(adata: ad.AnnData) -> None:
    order = np.random.default_rng(5).permutation(300)
    shuffled = adata[order].copy()
    for target in (adata, shuffled):
        sst.tl.edit(target, method="scm", top_k=None)
    np.testing.assert_allclose(
        dense(shuffled.layers["edited"]), dense(adata.layers["edited"])[order], rtol=1e-4, atol=1e-5
    )


def test_errors_name_what_is_wrong(adata: ad.AnnData) -> None:
    def fails(error: type[Exception], match: str, **options: Any) -> None:
        with pytest.raises(error, match=match):
            sst.tl.edit(adata, **options)

    fails(KeyError, "'HLA'", genes=["g1", "HLA"])
    fails(KeyError, "Did you mean 'g1'", genes=["G1"])
    fails(KeyError, "groupby='nope'", groupby="nope")
    fails(ValueError, "target='tumour'.*'tumor'", target="tumour")
    fails(ValueError, "both 'tumor'", source="tumor", target="tumor")
    fails(ValueError, "chooses no cell", subset="area > 2")
    fails(ValueError, "chooses no cell of 'normal'", source="normal", subset={"condition": ["tumor"]})
    fails(KeyError, "layer='raw'", layer="raw")
    fails(ValueError, "method='scn'", method="scn")
    fails(ValueError, "needs value=", method="from_layer")
    fails(KeyError, "value='nope'", method="from_layer", value="nope")
    fails(ValueError, "goes toward no group", method="knockout", target="tumor")
    fails(ValueError, "top_k=2.5", top_k=2.5)
    fails(ValueError, "fit_on='test'", fit_on="test")
    one = adata[np.r_[0, 150:300]].copy()
    one.obs["split"] = "train"
    with pytest.raises(ValueError, match="'normal'.*1 training cells"):
        sst.tl.edit(one)
    X = dense(adata.X)
    X[:, 5] = 2
    adata.X = sp.csr_matrix(X)
    fails(ValueError, r"\['g5'\] are constant", genes=["g5", "g6"])
    sst.tl.edit(adata)
    X[3, 7] = -1
    adata.X = sp.csr_matrix(X)
    fails(ValueError, "X holds negative values in .'g7'.")
    X[3, 7] = np.nan
    adata.layers["l"] = X
    fails(ValueError, r"layers\['l'\] holds NaN", layer="l")


def test_an_edit_off_the_manifold_is_called_so(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.edit(adata, method="scale", value=200.0)
    assert "extrapolations" in caplog.text
    table = adata.uns["edited"]["report"]["directions"]
    assert table["off_manifold"].iloc[0] > 0.9
    assert table["distance_edited"].iloc[0] > table["distance_floor"].iloc[0]
