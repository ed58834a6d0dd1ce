from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sst

mpl.use("Agg")


@pytest.fixture(scope="module")
def measured() -> ad.AnnData:
    """Two groups of discs whose size and marker differ; an edit in both directions and one in a single direction."""
    rng = np.random.default_rng(0)
    n, size = 24, 32
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    tumor = np.repeat([False, True], n)

    def draw(large: np.ndarray) -> np.ndarray:
        radius = np.where(large, 7.5, 5.0) + rng.normal(0, 0.4, 2 * n)
        disc = 1 / (1 + np.exp(2 * (np.hypot(y, x)[None] - radius[:, None, None])))
        marker = np.where(large, 150, 60)[:, None, None] + rng.normal(0, 10, (2 * n, 1, 1)) + 0 * disc
        return np.clip(np.stack([marker, 20 + 150 * disc], 1), 0, 255).astype(np.uint8)

    adata = ad.AnnData(rng.poisson(np.where(tumor, 9, 3)[:, None], (2 * n, 2)).astype(np.float32))
    adata.var_names = ["B2M", "ALB"]
    adata.obs_names = [f"c{k}" for k in range(2 * n)]
    adata.obs["condition"] = np.where(tumor, "tumor", "normal")
    adata.obs["condition"] = adata.obs["condition"].astype("category")
    adata.obs["split"] = np.where(np.arange(2 * n) % 2, "test", "train")
    adata.obsm["crops"] = draw(tumor)
    adata.obsm["generated"] = draw(tumor)
    adata.obsm["edited"] = draw(~tumor)
    adata.obsm["one_way"] = np.where(tumor[:, None, None, None], adata.obsm["generated"], draw(~tumor))
    adata.uns["edited"] = {"params": {"groupby": "condition"}}
    adata.uns["one_way"] = {"params": {"groupby": "condition", "source": "normal", "target": "tumor"}}
    adata.uns["crops"] = {"channels": ["CD298/B2M", "DAPI"], "pixel_size": 0.5}
    for key in ("crops", "generated", "edited", "one_way"):
        sst.tl.morphology(adata, key=key)
    sst.tl.distances(adata, repeats=2, metrics=["frechet", "kid"])
    return adata


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_distances_bars_are_the_table(measured):
    axes = sst.pl.distances(measured)
    assert [a.get_title() for a in axes] == ["cells of normal", "cells of tumor"]
    table = measured.uns["distances"]["table"]
    rows = table[(table["metric"] == "frechet") & (table["source"] == "normal")]
    assert sorted(p.get_height() for p in axes[0].patches) == pytest.approx(sorted(rows["mean"]))
    assert [t.get_text() for t in axes[0].get_xticklabels()] == [
        "real",
        "generated",
        "edited\n→ tumor",
        "one way\n→ tumor",
    ]
    assert [t.get_text() for t in axes[1].get_xticklabels()][-1] == "one way"
    single = sst.pl.distances(measured, metric="kid", keys=["edited"], return_fig=True)
    assert "kernel" in single.axes[0].get_ylabel()
    figure, given = plt.subplots(1, 2)
    assert sst.pl.distances(measured, ax=given)[0] is given[0]
    with pytest.raises(ValueError, match="metric='d_eig'"):
        sst.pl.distances(measured, metric="d_eig")
    with pytest.raises(KeyError, match="'nope' was not measured"):
        sst.pl.distances(measured, keys=["nope"])
    with pytest.raises(KeyError, match="key='absent'"):
        sst.pl.distances(measured, key="absent")


def test_colors_come_from_uns(measured):
    adata = measured.copy()
    adata.uns["condition_colors"] = ["#112233", "#445566"]
    axes = sst.pl.distances(adata)
    assert mpl.colors.to_hex(axes[0].patches[0].get_edgecolor()) == "#112233"


def test_morphology_panels_and_stars(measured):
    axes = sst.pl.morphology(measured)
    assert [a.get_ylabel() for a in axes] == [
        "nuclear area (µm²)",
        "CD298/B2M, mean in window",
        "DAPI, mean in nucleus",
    ]
    ticks = [t.get_text() for t in axes[0].get_xticklabels()]
    assert ticks == ["real", "generated", "edited → tumor", "one way → tumor", "real", "generated", "edited → normal"]
    assert [t.get_text() for t in axes[0].texts].count("****") >= 2
    one = sst.pl.morphology(measured, "nucleus_area", keys=["crops", "edited"], subset={"condition": "tumor"})
    assert [t.get_text() for t in one.get_xticklabels()] == ["real", "edited → normal"]
    with pytest.raises(KeyError, match=r"feature='area'"):
        sst.pl.morphology(measured, "area")
    with pytest.raises(KeyError, match=r"run sst.tl.morphology\(adata, key='x'\)"):
        sst.pl.morphology(measured, keys=["x"])


def test_morphology_without_any_nucleus(measured):
    adata = measured[:4].copy()
    adata.obs["crops_nucleus_area"] = np.nan
    ax = sst.pl.morphology(adata, "nucleus_area", keys=["crops"])
    assert ax.texts[0].get_text() == "no nucleus found"


def test_gallery_shows_held_out_cells(measured, tmp_path):
    axes = sst.pl.gallery(measured, n_cells=3)
    assert axes.shape == (4, 7)
    test = np.flatnonzero((measured.obs["split"] == "test") & (measured.obs["condition"] == "normal"))
    shown = axes[0, 0].get_images()[0].get_array()
    reals = [sst.pl._drawing._style.to_rgb(measured.obsm["crops"][k]) for k in test]
    assert any(np.array_equal(shown, r) for r in reals)
    assert [a.get_ylabel() for a in axes[:, 0]] == ["real", "generated", "edited", "one way"]
    figure = sst.pl.gallery(measured, cells=["c0", "c30"], keys=["crops"], channels=["DAPI"], return_fig=True)
    figure.savefig(tmp_path / "g.pdf")
    grey = figure.axes[0].get_images()[0].get_array()
    assert np.array_equal(grey[..., 0], measured.obsm["crops"][0, 1])
    with pytest.raises(KeyError, match=r"cells: \['c99'\]"):
        sst.pl.gallery(measured, cells=["c99"])
    with pytest.raises(KeyError, match="'RNA' is not a channel"):
        sst.pl.gallery(measured, channels=["RNA"])
    with pytest.raises(KeyError, match="keys: 'x'"):
        sst.pl.gallery(measured, keys=["x"])


def test_gallery_of_raw_single_channel(measured):
    adata = measured[:, :].copy()
    for key in ("generated", "edited", "one_way"):
        del adata.obsm[key]
    adata.obsm["crops"] = adata.obsm["crops"][:, 1:].astype(np.uint16) * 200
    adata.uns["crops"] = {"channels": ["DAPI"]}
    axes = sst.pl.gallery(adata, n_cells=2)
    assert axes[0, 0].get_images()[0].get_array().max() == 255


def test_gene_marker_reports_the_within_group_correlation(measured):
    from scipy.stats import spearmanr

    axes = sst.pl.gene_marker(measured, ["B2M", "ALB"])
    assert len(axes) == 4
    normal = (measured.obs["condition"] == "normal").to_numpy()
    rho = spearmanr(measured.X[normal, 1], measured.obs["generated_CD298-B2M_window_mean"][normal]).statistic
    assert f"normal  ρ = {rho:.2f}" in [t.get_text() for t in axes[3].get_legend().get_texts()]
    assert axes[0].get_xlim() == axes[1].get_xlim()
    constant = measured.copy()
    constant.X[:, 0] = 1
    ax = sst.pl.gene_marker(constant, "B2M", "nucleus_area", keys=["crops"])
    assert "ρ undefined" in ax.get_legend().get_texts()[0].get_text()
    with pytest.raises(KeyError, match="'XYZ'"):
        sst.pl.gene_marker(measured, "XYZ")


@pytest.fixture
def evaluated(measured):
    rows, changes = [], []
    for images in ("generated", "reconstructed"):
        for source, other in (("normal", "tumor"), ("tumor", "normal")):
            for edit in ("none", "chosen", "all", "random", *(["fade"] if images == "reconstructed" else [])):
                near = edit in {"chosen", "all"}
                for reference in (source, other):
                    mean = 2.0 if (reference == other) == near else 9.0
                    rows.append(
                        {"images": images, "edit": edit, "cells": "all", "source": source, "reference": reference}
                        | {"metric": "frechet", "mean": mean, "sd": 0.3, "floor": 1.0, "features": "pixel-pca"}
                    )
                if edit != "none":
                    share = 0.9 if near else 0.02
                    changes += [
                        {
                            "images": images,
                            "edit": edit,
                            "cells": "all",
                            "source": source,
                            "target": other,
                            "feature": f,
                        }
                        | {
                            "gap": -2.0,
                            "change": -2 * share,
                            "change_low": -2 * share - 0.2,
                            "change_high": -2 * share + 0.2,
                        }
                        for f in ("nucleus_area", "CD298-B2M_window_mean", "nucleus_solidity")
                    ]
    adata = measured.copy()
    tables = {"distances": pd.DataFrame(rows), "morphology": pd.DataFrame(changes)}
    adata.uns["evaluation"] = {"params": {"groupby": "condition"}, **tables}
    return adata


def test_evaluation_distances_are_the_table(evaluated):
    axes = sst.pl.evaluation(evaluated)
    assert [a.get_title() for a in axes] == [
        "generated: normal",
        "generated: tumor",
        "reconstructed: normal",
        "reconstructed: tumor",
    ]
    assert [p.get_height() for p in axes[0].patches] == [2, 9, 9, 2, 9, 2, 2, 9]
    assert len(axes[2].patches) == 10
    assert [bool(p.get_hatch()) for p in axes[2].patches[-4:]] == [True] * 4
    with pytest.raises(ValueError, match="metric='kid'"):
        sst.pl.evaluation(evaluated, metric="kid")
    with pytest.raises(ValueError, match="what='bars'"):
        sst.pl.evaluation(evaluated, "bars")


def test_evaluation_gap_is_change_over_gap(evaluated):
    figure = sst.pl.evaluation(evaluated, "gap", return_fig=True)
    axis = figure.axes[0]
    assert axis.get_title() == "generated: normal → tumor"
    assert [t.get_text() for t in axis.get_yticklabels()] == ["nuclear area", "CD298/B2M, mean in window"]
    lines = {c.get_label(): c.lines[0].get_xdata() for c in axis.containers}
    assert lines["chosen genes"] == pytest.approx([0.9, 0.9])
    assert lines["random genes"] == pytest.approx([0.02, 0.02])
    assert "fade only" in [t.get_text() for t in figure.legends[0].get_texts()]
    ax = sst.pl.evaluation(evaluated, "gap", features=["nucleus_solidity"])
    assert len(ax) == 4
    with pytest.raises(KeyError, match="'area' was not measured"):
        sst.pl.evaluation(evaluated, "gap", features=["area"])


def test_evaluation_gap_shows_each_donor(evaluated):
    plain = len(sst.pl.evaluation(evaluated, "gap")[0].collections)
    morphology = evaluated.uns["evaluation"]["morphology"]
    parts = [morphology.assign(donor=d, change=morphology["change"] * f, n=9) for d, f in (("a", 0.5), ("b", 1.5))]
    evaluated.uns["evaluation"]["donors"] = pd.concat(parts)
    axis = sst.pl.evaluation(evaluated, "gap")[0]
    drawn = [np.asarray(c.get_offsets())[:, 0] for c in axis.collections[-6:]]
    assert len(axis.collections) == plain + 6  # three edits, two features
    assert sorted(drawn[0]) == pytest.approx([0.45, 1.35])
