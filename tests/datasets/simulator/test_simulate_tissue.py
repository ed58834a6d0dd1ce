from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import sst
from sst.datasets import CHANNELS, TissueConfig, simulate_tissue

SMALL = {"n_cells": 120, "fovs": 2}


@pytest.fixture(scope="module")
def tissue():
    return simulate_tissue(**SMALL)


@pytest.fixture(scope="module")
def large():
    return simulate_tissue(n_cells=1500, fovs=3)


@pytest.fixture(scope="module")
def large_adata(large):
    return large.to_adata()


def digest(tissue) -> str:
    state = hashlib.sha256()
    for group in tissue.config.groups:
        view = tissue.draw(group, 2)
        for array in (view.images, view.labels, view.compartments, *view.transcripts.values()):
            state.update(np.ascontiguousarray(array).tobytes())
    state.update(tissue.latent.tobytes())
    state.update(tissue.causes.to_csv().encode())
    return state.hexdigest()


def test_same_seed_same_tissue_in_any_order_and_process(tissue) -> None:
    first = digest(tissue)
    again = simulate_tissue(**SMALL)
    again.draw("tumor", 1)  # what was drawn before must not matter
    assert digest(again) == first
    assert digest(simulate_tissue(**SMALL, seed=1)) != first
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('t', sys.argv[1]); m = u.module_from_spec(s);"
        "s.loader.exec_module(m); print(m.digest(m.simulate_tissue(**m.SMALL)))"
    )
    out = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == first


def test_the_easy_tissue_stays_what_it_was(tissue) -> None:
    """Figures were recorded on it; the last digits of exponentials may differ between machines."""
    then = {
        "normal": ([378.449426, 144.661211, 134.003455, 59.298045, 111.348222], 21130, 16205),
        "tumor": ([462.074671, 136.467852, 268.343963, 52.660820, 167.552178], 41983, 27737),
    }
    for group, (intensity, transcripts, nuclei) in then.items():
        view = tissue.draw(group, 2)
        np.testing.assert_allclose(view.images.mean(axis=(1, 2)), intensity, rtol=1e-5)
        assert len(view.transcripts["x"]) == pytest.approx(transcripts, rel=1e-3)
        assert (view.compartments == 1).sum() == pytest.approx(nuclei, rel=1e-4)
    means = tissue.causes[["marker", "nucleus_area", "texture", "x", "y"]].mean()
    np.testing.assert_allclose(means, [644.5667494, 33.0029367, 0.2230784, 213.5845085, 208.6556887], rtol=1e-6)
    assert tissue.latent.mean() == pytest.approx(0.8509655533873767, rel=1e-9)


def test_causes_are_kept(tissue) -> None:
    causes = tissue.causes
    assert len(causes) == 240
    assert causes.index.is_unique
    assert set(causes["group"]) == {"normal", "tumor"}
    assert tissue.latent.shape == (240, 60)
    for name in (
        "nucleus_area",
        "nucleus_area_px",
        "elongation",
        "angle",
        "texture",
        "marker",
        "depth",
        "x",
        "y",
        "fov",
    ):
        assert np.isfinite(causes[name].astype(float)).all(), name
    for _, cells in causes.groupby(["group", "fov"]):
        assert sorted(cells["cell"]) == list(range(1, len(cells) + 1))
    side = tissue.config.side
    assert causes[["x", "y"]].to_numpy().min() >= 0
    assert causes[["x", "y"]].to_numpy().max() < side
    genes = tissue.genes
    for name in genes.index[genes["causes"] != ""]:
        np.testing.assert_array_equal(causes[f"latent_{name}"], tissue.latent[:, genes.index.get_loc(name)])
    # The area follows its one cause and its own noise, and nothing else.
    um2 = np.log(causes["nucleus_area"]) - causes["nucleus_area_noise"]
    effect = genes.loc["H2AZ1", "effect"]
    np.testing.assert_allclose(np.diff(um2), effect * np.diff(causes["latent_H2AZ1"]), atol=1e-9)


def test_gene_table(tissue) -> None:
    genes = tissue.genes
    assert genes.index.is_unique
    assert genes.index.is_monotonic_increasing
    assert dict(genes["causes"][genes["causes"] != ""]) == {
        "HLA-A": "marker", "B2M": "marker", "H2AZ1": "nucleus_area", "HMGB2": "texture",
    }  # fmt: skip
    levels = ["mean_normal", "mean_tumor", "sd_normal", "sd_tumor", "nuclear", "loading"]
    for null, causal in genes["matches"][genes["matches"] != ""].items():
        assert genes.loc[null, "causes"] == ""
        assert list(genes.loc[null, levels]) == list(genes.loc[causal, levels])
        assert genes.loc[null, "programme"] != genes.loc[causal, "programme"]
    free = genes[genes["causes"] == ""]
    shared = free["programme"].isin(genes["programme"][genes["causes"] != ""])
    assert shared.sum() >= 10
    assert (np.abs(np.log(free["mean_tumor"] / free["mean_normal"])) > 0.2).mean() > 0.3
    assert len(simulate_tissue(**SMALL, n_genes=200).genes) == 200
    assert len(simulate_tissue(**SMALL, n_genes=16).genes) == 16


def test_latent_moments_are_those_of_the_table(large) -> None:
    for group in large.config.groups:
        mine = (large.causes["group"] == group).to_numpy()
        mean = np.exp(large.latent[mine]).mean(0)
        np.testing.assert_allclose(mean / large.genes[f"mean_{group}"], 1, atol=0.35)
        assert abs(np.mean(mean / large.genes[f"mean_{group}"]) - 1) < 0.05


def test_negative_binomial_moments_and_coupling() -> None:
    from sst.datasets.simulator._random import gamma_poisson, key_of, mix

    key = key_of(3)
    draw = lambda mean, disp, n=20000: np.array([gamma_poisson(mean, disp, np.uint64(key), k) for k in range(n)])
    for mean, disp in ((0.3, 0.0), (5.0, 0.1), (80.0, 0.02), (900.0, 0.01)):
        counts = draw(mean, disp)
        assert counts.min() >= 0
        assert counts.mean() == pytest.approx(mean, rel=0.03)
        assert counts.var() == pytest.approx(mean + disp * mean**2, rel=0.08)
    # The same randomness at a higher mean never gives fewer.
    assert (draw(20.0, 0.05, 3000) <= draw(24.0, 0.05, 3000)).all()
    assert (draw(20.0, 0.05, 3000) < draw(24.0, 0.05, 3000)).mean() > 0.5
    assert mix(np.uint64(1), 2) != mix(np.uint64(2), 1)


def test_nuclei_have_the_area_that_was_drawn() -> None:
    # Far apart, so that none is covered by another.
    tissue = simulate_tissue(n_cells=40, fovs=1, fov_size=1400)
    view = tissue.draw("tumor", 1, transcripts=False)
    inside = (view.causes[["nucleus_x", "nucleus_y"]].to_numpy() > 30) & (
        view.causes[["nucleus_x", "nucleus_y"]].to_numpy() < 1370
    )
    keep = inside.all(axis=1)
    drawn = np.bincount(view.labels[view.compartments == 1], minlength=41)[1:]
    ratio = drawn[keep] / view.causes["nucleus_area_px"].to_numpy()[keep]
    assert np.abs(ratio - 1).max() < 0.03
    assert abs(ratio.mean() - 1) < 0.005


def test_labels_and_compartments_agree(tissue) -> None:
    view = tissue.draw("normal", 1)
    assert set(np.unique(view.compartments)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(view.labels > 0, view.compartments > 0)
    assert view.labels.max() == len(view.causes)
    t = view.transcripts
    np.testing.assert_array_equal(t["cell"], view.labels[np.floor(t["y"]).astype(int), np.floor(t["x"]).astype(int)])
    assert (t["x"] != np.floor(t["x"])).all()
    own = (t["cell"] == t["source"])[t["source"] > 0].mean()
    assert 0.9 < own < 1
    assert 0.02 < (t["source"] == 0).mean() < 0.1
    nuclear = tissue.genes["nuclear"].to_numpy()[t["gene"]]
    on = view.compartments[np.floor(t["y"]).astype(int), np.floor(t["x"]).astype(int)] == 1
    assert on[nuclear > 0.9].mean() > 2 * on[nuclear < 0.4].mean()


def test_noise_is_shot_and_camera_noise(tissue) -> None:
    config = tissue.config
    noisy = tissue.draw("tumor", 1, transcripts=False).images.astype(float)
    clean = tissue.draw("tumor", 1, noise=False, transcripts=False).images
    assert clean.dtype == np.float32
    z = (noisy - clean) / np.sqrt(config.gain * clean + config.read_noise**2)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    for low, high in ((20, 60), (200, 400), (600, 1500)):
        assert abs(z[(clean > low) & (clean < high)].std() - 1) < 0.05


def test_stains_lie_where_they_belong(tissue) -> None:
    view = tissue.draw("tumor", 2, transcripts=False)
    mean = pd.DataFrame(
        {c: {k: view.images[i][view.compartments == k].mean() for k in range(4)} for i, c in enumerate(view.channels)}
    )
    assert list(view.channels) == list(CHANNELS)
    assert mean["DAPI"].idxmax() == 1
    assert mean["CD298/B2M"].idxmax() == 2
    assert mean["rRNA"].idxmax() == 3
    assert mean.loc[2, "CD298/B2M"] > 2 * mean.loc[3, "CD298/B2M"]


def test_to_adata_is_what_brute_force_gives(tissue) -> None:
    size = 48
    adata = tissue.to_adata(size=size, output_size=size, channels=["DAPI", "PanCK"])
    side = tissue.config.side
    expected = []
    for name, cell in tissue.causes.iterrows():
        x, y = int(np.floor(cell["x"])) - size // 2, int(np.floor(cell["y"])) - size // 2
        if min(x, y) >= 0 and max(x, y) + size <= side:
            expected.append(name)
    assert list(adata.obs_names) == expected
    views = {(g, f): tissue.draw(g, f, channels=["DAPI", "PanCK"]) for g in tissue.config.groups for f in (1, 2)}
    for k, name in enumerate(adata.obs_names):
        cell = tissue.causes.loc[name]
        view = views[cell["group"], cell["fov"]]
        x, y = int(np.floor(cell["x"])) - size // 2, int(np.floor(cell["y"])) - size // 2
        np.testing.assert_array_equal(adata.obsm["crops"][k], view.images[:, y : y + size, x : x + size])
        t = view.transcripts
        inside = (t["x"] >= x) & (t["x"] < x + size) & (t["y"] >= y) & (t["y"] < y + size)
        np.testing.assert_array_equal(
            adata.X[k].toarray()[0], np.bincount(t["gene"][inside], minlength=len(tissue.genes))
        )
        np.testing.assert_array_equal(
            adata.layers["segmented"][k].toarray()[0],
            np.bincount(t["gene"][t["cell"] == cell["cell"]], minlength=len(tissue.genes)),
        )
        assert adata.obs["true_nucleus_area"].iloc[k] == cell["nucleus_area"]
    assert adata.uns["crops"]["channels"] == ["DAPI", "PanCK"]
    assert adata.uns["crops"]["pixel_size"] == pytest.approx(0.3)
    fewer = tissue.to_adata(size=size, output_size=24, border=30, min_qv=20)
    assert fewer.n_obs < adata.n_obs
    assert (fewer.X.toarray() <= adata[fewer.obs_names].X.toarray()).all()
    assert fewer.obsm["crops"].shape[1:] == (2, 24, 24)
    assert fewer.uns["crops"]["pixel_size"] == pytest.approx(0.6)


def test_adata_survives_a_file(tissue, tmp_path) -> None:
    import anndata as ad

    adata = tissue.to_adata()
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert list(back.uns["crops"]["channels"]) == ["CD298/B2M", "DAPI"]
    np.testing.assert_array_equal(back.obsm["crops"], adata.obsm["crops"])


def test_render_shows_the_same_cells(tissue) -> None:
    adata = tissue.to_adata()
    some = list(adata.obs["cell_id"].iloc[[5, 0, 100, 3]])
    np.testing.assert_array_equal(tissue.render(some, size=64, output_size=32), adata[some].obsm["crops"])
    assert tissue.render(size=20, channels=["DAPI"]).shape == (240, 1, 20, 20)
    clean = tissue.render(some, noise=False)
    assert clean.dtype == np.float32


def test_counterfactual_changes_what_the_genes_cause_and_nothing_else(tissue) -> None:
    names = list(tissue.causes.index)
    mine = (tissue.causes["group"] == "normal").to_numpy()
    before = tissue.render(names, channels=CHANNELS, size=40)
    marker = tissue.counterfactual(["HLA-A", "B2M"], "normal", "tumor")
    after = marker.render(names, channels=CHANNELS, size=40)
    at = {c: i for i, c in enumerate(CHANNELS)}
    for channel in ("DAPI", "rRNA", "PanCK", "CD45"):
        np.testing.assert_array_equal(after[:, at[channel]], before[:, at[channel]])
    np.testing.assert_array_equal(after[~mine], before[~mine])
    ring = at["CD298/B2M"]
    assert after[mine, ring].mean() > 1.3 * before[mine, ring].mean()
    # Ranks stay, and the distribution is the target's.
    for gene in ("HLA-A", "B2M"):
        g = tissue.genes.index.get_loc(gene)
        assert (np.argsort(marker.latent[mine, g]) == np.argsort(tissue.latent[mine, g])).all()
        np.testing.assert_allclose(marker.latent[mine, g].mean(), tissue.latent[~mine, g].mean(), atol=0.02)
        np.testing.assert_allclose(marker.latent[mine, g].std(), tissue.latent[~mine, g].std(), rtol=0.05)
    others = ~tissue.genes.index.isin(["HLA-A", "B2M"])
    np.testing.assert_array_equal(marker.latent[:, others], tissue.latent[:, others])
    kept = [c for c in tissue.causes if c not in {"marker", "latent_HLA-A", "latent_B2M"}]
    pd.testing.assert_frame_equal(marker.causes[kept], tissue.causes[kept])

    null = tissue.counterfactual(["APOA1", "TTR"], "normal", "tumor")
    np.testing.assert_array_equal(null.render(names[:40]), tissue.render(names[:40]))
    assert null.to_adata()[:, "APOA1"].X.sum() > 1.2 * tissue.to_adata()[:, "APOA1"].X.sum()
    assert "APOA1, TTR: normal -> tumor" in repr(null)

    # The same noise in the counts: where a gene goes up, no cell's count falls.
    a, b = (t.to_adata().layers["segmented"] for t in (tissue, null))
    g = tissue.genes.index.get_loc("TTR")
    up = (null.latent - tissue.latent)[:, g] >= 0
    rows = tissue.causes.index.get_indexer(tissue.to_adata().obs_names)
    assert (b[:, g].toarray() >= a[:, g].toarray())[up[rows]].mean() > 0.97  # strays of neighbours may leave


def test_size_edit_grows_the_nucleus(tissue) -> None:
    larger = tissue.counterfactual("H2AZ1", "normal", "tumor")
    mine = (tissue.causes["group"] == "normal").to_numpy()
    grown = (larger.causes["nucleus_area"] / tissue.causes["nucleus_area"])[mine]
    assert grown.mean() > 1.3
    names = list(tissue.causes.index[mine])
    at = CHANNELS.index("DAPI")
    a, b = (t.render(names, channels=CHANNELS)[:, at].astype(float).mean() for t in (tissue, larger))
    assert b > 1.1 * a


def test_true_effect_is_what_the_images_show() -> None:
    large = simulate_tissue(n_cells=500, fovs=1)
    effect = large.true_effect(["HLA-A", "B2M"], "normal", "tumor")
    adata, edited = (
        t.to_adata(output_size=64) for t in (large, large.counterfactual(["HLA-A", "B2M"], "normal", "tumor"))
    )
    mean = lambda a, g: a[a.obs["condition"] == g].obsm["crops"][:, 0].mean()
    assert effect.loc["marker", "source"] == pytest.approx(mean(adata, "normal"), rel=0.005)
    assert effect.loc["marker", "edited"] == pytest.approx(mean(edited, "normal"), rel=0.005)
    assert effect.loc["marker", "target"] == pytest.approx(mean(adata, "tumor"), rel=0.005)
    assert 0.85 < effect.loc["marker", "share"] < 1.15
    assert effect.loc["nucleus_area", "change"] == 0
    assert large.true_effect("H2AZ1", "tumor", "normal").loc["nucleus_area", "share"] == pytest.approx(1, abs=0.05)


def test_gaps_and_spearmans_are_as_promised(large_adata) -> None:
    adata = large_adata
    counts = adata.to_df()
    marker = adata.obsm["crops"][:, 0].mean(axis=(1, 2))
    area = adata.obs["true_nucleus_area"].to_numpy()
    normal = (adata.obs["condition"] == "normal").to_numpy()
    assert 1.5 < marker[~normal].mean() / marker[normal].mean() < 1.85
    assert 1.35 < area[~normal].mean() / area[normal].mean() < 1.65
    for values in (marker, area):  # differently spread, and overlapping
        assert values[~normal].std() > 1.2 * values[normal].std()
        assert (values[~normal] < np.quantile(values[normal], 0.75)).mean() > 0.1
    for mine in (normal, ~normal):
        for gene in ("HLA-A", "B2M"):
            assert 0.58 < spearmanr(counts[gene][mine], marker[mine])[0] < 0.78
        assert 0.85 < spearmanr(counts["H2AZ1"][mine], area[mine])[0] < 0.95
        assert abs(spearmanr(counts["SERPINA1"][mine], area[mine])[0]) < 0.25


def test_nuclei_can_be_measured(large_adata) -> None:
    adata = large_adata[::10]
    found = sst.metrics.nucleus_features(adata.obsm["crops"], nucleus_channel=1, pixel_size=0.6, n_jobs=1)
    ratio = found["nucleus_area"].to_numpy() / adata.obs["true_nucleus_area"].to_numpy()
    assert np.isfinite(ratio).mean() > 0.98
    assert abs(np.nanmedian(ratio) - 1) < 0.05


def test_brightness_is_a_confound_of_the_slide() -> None:
    plain, bright = simulate_tissue(**SMALL), simulate_tissue(**SMALL, brightness={"tumor": 1.2})
    offset = plain.config.offset
    for group, factor in (("normal", 1.0), ("tumor", 1.2)):
        a, b = (t.draw(group, 1, noise=False, transcripts=False).images[4] for t in (plain, bright))
        assert (b.max() - offset) / (a.max() - offset) == pytest.approx(factor, rel=0.02)
    np.testing.assert_array_equal(plain.to_adata().X.toarray(), bright.to_adata().X.toarray())


def test_other_names_and_scales() -> None:
    tissue = simulate_tissue(n_cells=30, fovs=1, groups=("healthy", "sick"), pixel_size=0.12)
    assert set(tissue.causes["group"]) == {"healthy", "sick"}
    assert tissue.to_adata(size=160, output_size=128).obsm["crops"].shape[1:] == (2, 128, 128)
    assert set(simulate_tissue(**SMALL).causes["cell_type"]) == {"Hep.1", "Hep.3", "tumor_1", "tumor_2"}


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"n_cells": 0}, ValueError, "n_cells=0"),
        ({"n_cells": 2.5}, TypeError, "n_cells=2.5"),
        ({"n_genes": 5}, ValueError, "n_genes=5"),
        ({"groups": ("a", "a")}, ValueError, "groups="),
        ({"groups": ("a",)}, ValueError, "groups="),
        ({"brightness": {"liver": 2.0}}, KeyError, "normal.*tumor"),
        ({"brightness": {"normal": -1.0}}, ValueError, "brightness"),
        ({"ambient": 1.5}, ValueError, "ambient=1.5"),
        ({"pixel_size": 0.0}, ValueError, "pixel_size=0.0"),
        ({"n_cells": 5, "fovs": 10}, ValueError, "fovs=10"),
    ],
)
def test_settings_check_themselves(settings, error, says) -> None:
    with pytest.raises(error, match=says):
        TissueConfig(**settings)


def test_errors_name_what_was_possible(tissue) -> None:
    with pytest.raises(KeyError, match="'HLA-AA'.*HLA-A"):
        tissue.counterfactual(["HLA-AA"], "normal", "tumor")
    with pytest.raises(KeyError, match="'liver'.*normal.*tumor"):
        tissue.counterfactual(None, "liver", "tumor")
    with pytest.raises(KeyError, match="fov=9.*1 to 2"):
        tissue.draw("normal", 9)
    with pytest.raises(ValueError, match="channel='GFP'.*DAPI"):
        tissue.draw("normal", 1, channels=["GFP"])
    with pytest.raises(KeyError, match="c_9_9_9"):
        tissue.render(["c_9_9_9"])
    with pytest.raises(ValueError, match="size=5000"):
        tissue.to_adata(size=5000)
    with pytest.raises(TypeError, match="config"):
        simulate_tissue(n_cells=100, config=TissueConfig(n_cells=50, fovs=1))
