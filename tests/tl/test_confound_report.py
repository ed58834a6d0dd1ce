from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst


def make(*, background: float = 0.0, depth: float = 1.0, seed: int = 0) -> ad.AnnData:
    """Two slides that differ in one gene; optionally in the background's level or in depth."""
    rng = np.random.default_rng(seed)
    n = 160
    tumor = np.arange(2 * n) >= n
    rates = np.full((2 * n, 10), 8.0)
    rates[tumor, 0] *= 3
    rates[tumor] *= depth
    images = rng.normal(40, 5, (2 * n, 2, 16, 16))
    images[tumor] += background
    obs = pd.DataFrame(
        {
            "condition": np.where(tumor, "tumor", "normal"),
            "fov": np.tile(np.arange(n) // 20, 2).astype(str),  # the slides number their fields alike
        },
        index=[str(i) for i in range(2 * n)],
    )
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(rates).astype(np.float32)), obs=obs)
    adata.var_names = [f"g{i}" for i in range(10)]
    adata.obsm["crops"] = images.clip(0, 255).astype(np.uint8)
    adata.uns["crops"] = {
        "channels": ["A/B", "DAPI"],
        "limits": {
            "groupby": "condition",
            "low": {"normal": [1, 2], "tumor": [3, 4]},
            "high": {"normal": [9, 8], "tumor": [7, 6]},
        },
    }
    return adata


def accuracy(adata: ad.AnnData) -> pd.Series:
    sst.tl.confound_report(adata)
    return adata.uns["confound_report"]["prediction"].set_index("features")["balanced_accuracy"]


def test_a_clean_pair_of_slides() -> None:
    found = accuracy(make())
    assert found["background"] < 0.65
    assert found["extremes"] < 0.65


def test_each_confound_is_found(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sst"):
        found = accuracy(make(background=4.0))
    assert found["background"] > 0.9
    assert "background alone tells the groups" in caplog.text
    deep = make(depth=2.0)
    found = accuracy(deep)
    assert found["depth"] > 0.9
    assert found["background"] < 0.65
    report = deep.uns["confound_report"]
    genes = report["genes"].set_index("gene")
    assert genes.loc["g0", "log2_fold"] == pytest.approx(np.log2(6), abs=0.1)
    flat = genes.loc["g3"]
    assert abs(flat["log2_fold_at_equal_depth"]) < abs(flat["log2_fold"])  # depth explains most of it
    depth = report["depth"].set_index("group")["total_counts_mean"]
    assert depth["tumor"] / depth["normal"] == pytest.approx(2.4, abs=0.1)


def test_fields_are_held_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    seen = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, X, y: seen.append(len(y)) or fit(self, X, y))
    adata = make()
    sst.tl.confound_report(adata, n_folds=4)
    assert set(seen) == {240}  # 16 fields of 20 cells, a quarter of them held out
    adata.obs["fov"] = "1"
    seen.clear()
    sst.tl.confound_report(adata, n_folds=5)  # one field a slide: cells are held out
    assert set(seen) == {256}


def test_controls_limits_and_files(tmp_path) -> None:
    adata = make(depth=1.5)
    sst.tl.edit_controls(adata, ["g0"], method="mean", model=None, features={"first": lambda X: X[:, 0]})
    sst.tl.confound_report(adata, genes=["g0", "g1"])
    report = adata.uns["confound_report"]
    effects = report["effects"].set_index(["direction", "control"])
    assert effects.loc[("normal -> tumor", "random genes"), "remaining"] == pytest.approx(1)
    assert report["limits"]["high"].tolist() == [9, 8, 7, 6]
    assert report["genes"]["gene"].tolist() == ["g0", "g1"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        for name in ("prediction", "depth", "genes", "limits", "effects"):
            pd.testing.assert_frame_equal(
                again.uns["confound_report"][name],
                report[name],
                check_dtype=False,
                check_column_type=False,
                check_index_type=False,
            )


def test_without_images_and_errors() -> None:
    adata = make()
    del adata.obsm["crops"]
    assert set(accuracy(adata).index) == {"depth", "all"}
    with pytest.raises(KeyError, match="images='real'"):
        sst.tl.confound_report(adata, images="real")
    with pytest.raises(ValueError, match="only the group"):
        sst.tl.confound_report(adata[:100].copy())
    with pytest.raises(KeyError, match="groupby='nope'"):
        sst.tl.confound_report(adata, "nope")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_confounded_study_is_told_from_one_whose_slides_merely_differ(seed: int) -> None:
    dapi, apart = {}, {}
    for preset in ("realistic", "confounded"):
        adata = sst.datasets.simulate_tissue(150, 80, preset=preset, fovs=3, seed=seed).to_adata()
        found = accuracy(adata)
        table = adata.uns["confound_report"]["prediction"]
        assert set(table["held_out"]) == {"slide"}
        dapi[preset] = found["background, DAPI"]
        slides = adata.uns["confound_report"]["slides"].set_index("features")
        assert slides.loc["background, DAPI", "n_slides"] == 6
        apart[preset] = abs(slides.loc["background, DAPI", "gap_sd"])
    # The nuclear stain of what lies around a cell has no group, but where the slides have one.
    assert dapi["realistic"] < 0.75
    assert dapi["confounded"] > 0.8
    assert apart["confounded"] > 1.5 * apart["realistic"]


def test_fields_of_two_slides_with_one_number_are_two() -> None:
    adata = make()
    adata.obs["sample"] = np.where(np.arange(320) % 160 < 80, "a", "b")
    adata.obs["fov"] = "1"
    sst.tl.confound_report(adata)
    entry = adata.uns["confound_report"]
    assert entry["prediction"]["n_folds"].min() == 2
    assert entry["prediction"]["held_out"].iloc[0] == "slide"
