from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from factories import small_gan

import sst

mpl.use("Agg")
GENES, SIZE = 6, 16


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    rates = np.array([[20, 10, 5, 9, 20, 5], [30, 10, 5, 9, 30, 8]])
    X = np.vstack([rng.poisson(np.repeat(rates[[g]], 40, axis=0)) for g in (0, 1)])
    obs = pd.DataFrame(
        {"condition": pd.Categorical(np.repeat(["n", "t"], 40)), "fov": np.tile(np.repeat(list("abcd"), 10), 2)},
        index=[f"c{i}" for i in range(80)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    adata = ad.AnnData(sp.csr_matrix(X.astype(np.float32)), obs=obs, var=var)
    adata.obsm["crops"] = np.zeros((80, 2, SIZE, SIZE), dtype=np.uint8)
    adata.uns["crops"] = {
        "channels": ["CD298/B2M", "DAPI"], "size": 24, "output_size": SIZE, "pixel_size": 0.5,
    }  # fmt: skip
    return adata


class Model:
    """Level of the first channel: 2 g0 - 3 g2 + g0 g1 / 10."""

    hash = "h"
    folder = None
    registry = SimpleNamespace(kind="gan", groupby="condition", check=lambda *_, **__: None)
    drawn = 0

    def generate(self, data: ad.AnnData, **_: object) -> np.ndarray:
        self.drawn += data.n_obs
        X = np.asarray(data.X, dtype=float)
        level = 100 + 2 * X[:, 0] - 3 * X[:, 2] + X[:, 0] * X[:, 1] / 10
        return np.broadcast_to(level.reshape(-1, 1, 1, 1), (data.n_obs, 2, SIZE, SIZE))


def level(images: np.ndarray) -> np.ndarray:
    return images[:, 0].mean(axis=(1, 2))


def test_differences_are_those_of_the_model(adata: ad.AnnData, tmp_path) -> None:
    model = Model()
    sst.tl.rank_genes_effect(adata, level, model=model, perturbation=1.0, n_cells=30)
    table = adata.uns["rank_genes_effect"]["table"]
    found = table[table["group"] == "n"].set_index("gene")
    assert found.index[:2].tolist() in (["g0", "g2"], ["g2", "g0"])
    assert found.loc["g2", "effect"] == pytest.approx(-3)
    assert found.loc["g0", "effect"] == pytest.approx(2 + 1.0, abs=0.15)  # g1 is 10 on average
    assert found.loc["g1", "effect"] == pytest.approx(2.0, abs=0.3)  # g0 is 20
    assert (found.loc[["g3", "g4", "g5"], "effect"] == 0).all()
    assert found.loc["g2", "p_adjusted"] < 1e-6
    np.testing.assert_allclose(adata.var["rank_genes_effect_n"], found.loc[adata.var_names, "effect"])
    sst.tl.rank_genes_effect(adata, {"grey": level}, model=model, perturbation="knockout", genes=["g2"], key_added="ko")
    found = adata.uns["ko"]["table"].set_index("group")
    assert found.loc["n", "effect"] == pytest.approx(3 * adata.X[:40, 2].mean(), rel=0.2)
    assert np.isnan(adata.var["ko_n"]["g0"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        again.uns["rank_genes_effect"]["table"],
        table,
        check_dtype=False,
        check_index_type=False,
        check_column_type=False,
    )
    assert len(sst.pl.rank_genes_effect(again, n_genes=4)) == 2


def test_changes_that_change_nothing_are_not_drawn(adata: ad.AnnData) -> None:
    X = adata.X.toarray()
    X[:, 3] = 0
    adata.X = sp.csr_matrix(X)
    model = Model()
    sst.tl.rank_genes_effect(adata, level, model=model, perturbation="double", genes=["g3"], n_cells=10)
    assert model.drawn == 20  # the cells as they are, once per group
    assert (adata.uns["rank_genes_effect"]["table"]["effect"] == 0).all()


def test_gradients_add_up_and_agree_with_small_differences(adata: ad.AnnData) -> None:
    gan = small_gan(adata, genes_act=50)
    rng = np.random.default_rng(1)
    adata.layers["edited"] = adata.X.toarray() * rng.uniform(0.5, 1.5, GENES).astype(np.float32)
    sst.tl.rank_genes_effect(
        adata, "CD298-B2M_window_mean", model=gan, method="gradient", toward="edited", n_cells=4, n_steps=24
    )
    entry = adata.uns["rank_genes_effect"]
    for share in entry["report"]["completeness"].values():
        assert share == pytest.approx(1, abs=0.02)
    # slow, obvious reference: the change of the feature along a very short path is the sum of one-gene changes
    from sst.tl._editing._gradients import Differentiable, integrated_gradients, torch_feature
    from sst.tl._editing._images import Drawing
    from sst.tl._editing._measure import Measure, pick_cells

    cells = pick_cells(adata, adata.X, np.arange(80) < 3, n_cells=3, seed=0)
    measure = Measure(adata, "DAPI_window_mean")
    images = Differentiable(gan, cells, Drawing())
    drawn = ((images(np.arange(3), torch.from_numpy(cells.X[:, images.order]).float()) + 1) * 127.5).clamp(0, 255)
    np.testing.assert_allclose(
        drawn.detach().numpy(), cells.draw(gan, cells.X, Drawing()), atol=0.51
    )  # what generate draws
    feature = torch_feature(measure)
    end = cells.X + 0.01
    shares, change = integrated_gradients(images, feature, cells.X, end, n_steps=2)
    np.testing.assert_allclose(shares.sum(axis=1), change, rtol=0.05, atol=2e-4)
    for g in (0, 4):
        one = cells.X.copy()
        one[:, g] += 0.5
        alone, moved = integrated_gradients(images, feature, cells.X, one, n_steps=48)
        np.testing.assert_allclose(alone[:, g], moved, rtol=0.02, atol=5e-3)
        assert (np.delete(alone, g, axis=1) == 0).all()


def test_both_methods_and_area(adata: ad.AnnData) -> None:
    sst.tl.rank_genes_effect(adata, model=small_gan(adata, genes_act=50), method="both", n_cells=4, n_steps=4)
    table = adata.uns["rank_genes_effect"]["table"]
    assert {"effect", "gradient", "gradient_se"} <= set(table.columns)
    assert np.isfinite(table["gradient"]).all()
    figure = sst.pl.rank_genes_effect(adata, values="gradient", return_fig=True)
    assert len(figure.axes) == 2


def test_soft_area_follows_the_area() -> None:
    from sst.tl._editing._gradients import _soft_area

    y, x = np.mgrid[:48, :48] - 23.5
    radii = np.arange(5, 13)
    images = np.stack([20 + 150 / (1 + np.exp((np.hypot(y, x) - r) / 0.7)) for r in radii])
    area = _soft_area(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(area, np.pi * radii**2, rtol=0.12)


def test_dose_response(adata: ad.AnnData) -> None:
    sst.tl.dose_response(adata, ["g0", "g2"], (0, 1, 2), model=Model(), features=level, n_cells=40, n_resamples=200)
    table = adata.uns["dose_response"]["table"]
    found = table[(table["group"] == "t")].set_index(["genes", "factor"])
    assert found.loc[("g0", 1.0), "mean"] == 0
    slope = (adata.X[40:, 0].toarray() * (2 + adata.X[40:, 1].toarray() / 10)).mean()
    assert found.loc[("g0", 2.0), "mean"] == pytest.approx(slope, rel=1e-6)
    assert found.loc[("g0", 0.0), "mean"] == pytest.approx(-slope, rel=1e-6)
    assert found.loc[("g2", 2.0), "mean"] < 0
    assert (found["low_fov"] <= found["mean"]).all()
    sst.tl.dose_response(adata, {"set": ["g0", "g2", "other"]}, model=Model(), features={"grey": level}, n_cells=5)
    assert set(adata.uns["dose_response"]["table"]["genes"]) == {"set"}
    figure = sst.pl.dose_response(adata, interval="fovs", return_fig=True)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "0.25", "0.5", "1", "2", "4"]


def test_errors(adata: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="no image model"):
        sst.tl.rank_genes_effect(adata)
    with pytest.raises(ValueError, match="has no gradient"):
        sst.tl.rank_genes_effect(
            adata, "nucleus_eccentricity", model=small_gan(adata, genes_act=50), method="gradient", n_cells=2
        )
    with pytest.raises(ValueError, match="perturbation='half'"):
        sst.tl.rank_genes_effect(adata, model=Model(), perturbation="half")
    with pytest.raises(ValueError, match="one feature"):
        sst.tl.rank_genes_effect(adata, ["nucleus_area", "DAPI_window_mean"], model=Model())
    with pytest.raises(ValueError, match=r"factor=-1\.0"):
        sst.tl.dose_response(adata, "g0", (-1, 1), model=Model())
    with pytest.raises(KeyError, match="'g9'"):
        sst.tl.dose_response(adata, "g9", model=Model())


def test_ranks_over_donors(adata: ad.AnnData) -> None:
    adata.obs["donor"] = np.tile(np.repeat(["d1", "d2"], [35, 5]), 2)
    X = adata.X.toarray()
    X[(adata.obs["donor"] == "d2").to_numpy(), 1] += 40  # g0 acts through g1: more in this donor
    adata.X = sp.csr_matrix(X)
    sst.tl.rank_genes_effect(adata, level, model=Model(), perturbation=1.0, n_cells=20, batch_key="donor")
    table = adata.uns["rank_genes_effect"]["table"]
    found = table[table["group"] == "n"].set_index("gene")
    assert (found["n"] == 2).all()
    assert found.loc["g0", "effect"] == pytest.approx(np.mean([3, 7]), abs=0.4)  # each donor counts alike
    assert found.loc["g0", "low"] < 0  # two donors that differ show little
    sst.tl.rank_genes_effect(adata, level, model=Model(), perturbation="sd", n_cells=20, key_added="all")
    sst.tl.rank_genes_effect(adata, level, model=Model(), n_cells=20, batch_key="donor", key_added="within")
    step = {
        key: adata.uns[key]["table"].set_index(["group", "gene"]).loc[("n", "g1"), "effect"]
        for key in ("all", "within")
    }
    assert step["within"] < step["all"] / 2  # what sets donors apart is no spread of the cells
    with pytest.raises(KeyError, match="batch_key"):
        sst.tl.rank_genes_effect(adata, level, model=Model(), batch_key="slide")


def test_cells_of_a_field_count_as_alike():
    """An effect that fields have in common is no surer with more cells of the same fields."""
    rng = np.random.default_rng(0)
    fields = np.repeat(np.arange(6), 50)
    values = rng.normal(0, 1, 6)[fields][:, None] + rng.normal(0, 0.1, (300, 2))
    from sst.tl._rank_genes_effect import _summary

    alone, over = _summary(values, "effect"), _summary(values, "effect", fields=fields)
    np.testing.assert_array_equal(alone["effect"], over["effect"])
    means = values.reshape(6, 50, 2).mean(axis=1)
    np.testing.assert_allclose(over["se"], means.std(axis=0, ddof=1) / 6**0.5, rtol=1e-6)
    assert (over["p"] > 30 * alone["p"]).all()
    assert over["n_fields"].tolist() == [6, 6]
