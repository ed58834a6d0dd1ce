from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst


class Model:
    """Grey images whose level is 2 x the first gene, whatever the others do; an inversion's fade adds 7."""

    hash = "h"
    folder = None

    def __init__(self, kind: str = "gan") -> None:
        self.registry = SimpleNamespace(kind=kind, groupby="condition", check=lambda *_, **__: None)
        self.starts_from = "code" if kind == "inversion" else "expression"

    def generate(
        self, data: ad.AnnData, *, seed=0, batch_size=None, fade=0.0, source_layer=None, layer=None
    ) -> np.ndarray:
        level = 2 * np.asarray(data.X)[:, 0] + 7 * fade
        return np.broadcast_to(level.reshape(-1, 1, 1, 1), (data.n_obs, 1, 3, 3))


def level(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=(1, 2, 3))


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    rates = np.array([[20, 20, 5, 9, 20, 5, 7, 3], [30, 30, 5, 9, 30, 8, 7, 3]])
    X = np.vstack([rng.poisson(np.repeat(rates[[g]], 400, axis=0)) for g in (0, 1)])
    obs = pd.DataFrame(
        {"condition": np.repeat(["n", "t"], 400), "fov": np.tile(np.repeat(np.arange(8), 50), 2).astype(str)},
        index=[f"c{i}" for i in range(800)],
    )
    adata = ad.AnnData(
        sp.csr_matrix(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(8)])
    )
    adata.obsm["crops"] = np.zeros((800, 1, 3, 3), dtype=np.uint8)
    adata.uns["crops"] = {"channels": ["DAPI"], "pixel_size": 0.5}
    return adata


def table(adata: ad.AnnData, which: str, condition: str, direction: str = "n -> t") -> pd.Series:
    frame = adata.uns["edit_controls"][which]
    found = frame[(frame["condition"] == condition) & (frame["direction"] == direction)]
    assert len(found) == 1
    return found.iloc[0]


def test_effect_of_the_gene_and_none_of_the_controls(adata: ad.AnnData) -> None:
    sst.tl.edit_controls(adata, ["g0"], method="mean", model=Model(), features=level, n_cells=300, n_resamples=300)
    edit = table(adata, "effects", "edit")
    assert edit["mean"] == pytest.approx(20, abs=1.5)  # 2 grey values x 10 counts
    assert edit["low"] <= edit["mean"] <= edit["high"]
    assert table(adata, "effects", "edit", "t -> n")["mean"] == pytest.approx(-20, abs=1.5)
    for control in ("random genes", "strength 0"):
        assert table(adata, "effects", control)["mean"] == 0
        assert table(adata, "contrasts", control)["remaining"] == pytest.approx(1)
    for control in ("shuffled labels", "half of the source"):
        assert abs(table(adata, "effects", control)["mean"]) < 3
        contrast = table(adata, "contrasts", control)
        assert contrast["low_fov"] > 0
        assert contrast["mean"] == pytest.approx(edit["mean"] - table(adata, "effects", control)["mean"])


def test_an_effect_of_any_gene_does_not_survive(adata: ad.AnnData) -> None:
    class Depth(Model):
        def generate(self, data: ad.AnnData, **_: Any) -> np.ndarray:
            return np.broadcast_to(np.asarray(data.X).sum(1).reshape(-1, 1, 1, 1), (data.n_obs, 1, 3, 3))

    sst.tl.edit_controls(
        adata, ["g0"], source="n", target="t", method="mean", model=Depth(), features={"grey": level}, n_random=8
    )
    remaining = table(adata, "contrasts", "random genes")["remaining"]
    assert remaining < 0.5  # the matched genes g1 and g4 move as far
    assert table(adata, "effects", "random genes")["sd_repeats"] > 0


def test_fading_is_a_control_of_its_own(adata: ad.AnnData) -> None:
    sst.tl.edit_controls(adata, ["g0"], method="mean", model=Model("inversion"), features=level)
    assert table(adata, "effects", "strength 0")["mean"] == pytest.approx(7)
    assert table(adata, "contrasts", "strength 0")["mean"] == pytest.approx(20, abs=1.5)


def test_without_a_model_and_after_a_file(adata: ad.AnnData, tmp_path) -> None:
    sst.tl.edit_controls(adata, method="ot", model=None, n_shuffles=2)
    frame = adata.uns["edit_controls"]["effects"]
    assert set(frame["condition"]) == {"edit", "strength 0", "shuffled labels", "half of the source"}
    way = frame[frame["feature"] == "toward_target"].set_index(["condition", "direction"])["mean"]
    assert way["edit", "n -> t"] == pytest.approx(1, abs=0.15)
    assert abs(way["shuffled labels", "n -> t"]) < 0.1
    assert abs(way["half of the source", "n -> t"]) < 0.1
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        again.uns["edit_controls"]["effects"], frame, check_dtype=False, check_index_type=False, check_column_type=False
    )
    sst.tl.edit_controls(
        adata, ["g0"], method="knockout", model=None, features={"first": lambda X: X[:, 0]}, key_added="ko", n_cells=50
    )
    assert set(adata.uns["ko"]["effects"]["condition"]) == {"edit", "strength 0", "random genes"}


def test_a_prescribed_edit_is_the_one_that_was_asked_for(adata: ad.AnnData) -> None:
    first = {"first": lambda X: X[:, 0]}
    sst.tl.edit_controls(adata, ["g0"], method="set", value=100.0, model=None, features=first, n_shuffles=2)
    frame = adata.uns["edit_controls"]["effects"].set_index("condition")
    assert frame.loc["edit", "mean"] == pytest.approx(100 - adata.X[:, [0]].toarray().mean(), abs=1.5)
    assert frame.loc["random genes", "mean"] == 0
    params = adata.uns["edit_controls"]["params"]
    assert (params["method"], params["value"], params["fit_on"]) == ("set", 100.0, "train")


def test_errors(adata: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="nucleus_size"):
        sst.tl.edit_controls(adata, ["g0"], model=Model(), features="nucleus_size")
    with pytest.raises(ValueError, match="n_cells=0"):
        sst.tl.edit_controls(adata, n_cells=0)
    with pytest.raises(ValueError, match="one number each"):
        sst.tl.edit_controls(adata, model=Model(), features=lambda images: images)
    with pytest.raises(ValueError, match="too few are left"):
        sst.tl.edit_controls(adata, [f"g{i}" for i in range(6)], model=None)


def test_effects_over_donors(adata: ad.AnnData) -> None:
    """Donors' own levels of g0 are in the interval over donors, and in what donors dealt at random give."""
    rng = np.random.default_rng(1)
    adata.obs["donor"] = np.repeat([f"{g}{k}" for g in "nt" for k in range(4)], [310, 30, 30, 30, 100, 100, 100, 100])
    own = {d: 6 * k for k, d in enumerate(adata.obs["donor"].unique()) if d[0] == "n"}
    X = adata.X.toarray()
    X[:, 0] += rng.poisson([own.get(d, 0) for d in adata.obs["donor"]])
    adata.X = sp.csr_matrix(X)
    options = {"source": "n", "target": "t", "method": "mean", "model": Model(), "features": level, "n_cells": 80}
    sst.tl.edit_controls(adata, ["g0"], batch_key="donor", n_shuffles=4, **options)
    edit = table(adata, "effects", "edit")
    each = adata.uns["edit_controls"]["donors"]
    each = each[each["condition"] == "edit"].set_index("donor")
    assert (each["n"] > 15).all()  # though one donor has three quarters of the cells
    np.testing.assert_allclose(each["effect"], [2 * (10 - own[d]) for d in each.index], atol=3)
    assert edit["n_donors"] == 4
    assert edit["mean_donors"] == pytest.approx(each["effect"].mean())
    assert edit["low_donors"] < 0 < edit["high_donors"]
    assert edit["high"] - edit["low"] < (edit["high_donors"] - edit["low_donors"]) / 3
    dealt = table(adata, "effects", "shuffled labels")
    assert dealt["sd_repeats"] > 1  # whole donors are dealt; cells dealt at random would all be alike
    sst.tl.edit_controls(adata, ["g0"], n_shuffles=4, **options)
    assert table(adata, "effects", "shuffled labels")["sd_repeats"] < 1
    assert "n_donors" not in adata.uns["edit_controls"]["effects"]
