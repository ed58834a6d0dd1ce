from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import ConvexHull

from sst.datasets import CHANNELS, TissueConfig, simulate_tissue

SMALL = {"n_cells": 60, "fovs": 2, "n_genes": 90}
FEATURES = {
    "marker",
    "nucleus_area",
    "texture",
    "elongation",
    "lobes",
    "two_nuclei",
    "vacuoles",
    "membrane",
    "granules",
}
DERIVED = {"nucleus_area": {"nucleus_area", "nucleus_area_px"}, "two_nuclei": {"two_nuclei", "nuclei"}}


@pytest.fixture(scope="module")
def tissue():
    return simulate_tissue(preset="realistic", **SMALL)


@pytest.fixture(scope="module")
def large():
    return simulate_tissue(preset="realistic", n_cells=700, fovs=8, seed=2)


def digest(tissue) -> str:
    state = hashlib.sha256()
    for slide in tissue.config.slides[::2]:
        view = tissue.draw(slide, 2)
        for array in (view.images, view.labels, view.compartments, *view.transcripts.values()):
            state.update(np.ascontiguousarray(array).tobytes())
    state.update(tissue.latent.tobytes())
    state.update(tissue.causes.to_csv().encode())
    state.update(tissue.slides.to_csv().encode())
    return state.hexdigest()


def test_same_seed_same_tissue_in_any_order_and_process(tissue) -> None:
    again = simulate_tissue(preset="realistic", **SMALL)
    again.draw("tumor_3", 1)  # what was drawn before must not matter
    first = digest(tissue)
    assert digest(again) == first
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('t', sys.argv[1]); m = u.module_from_spec(s);"
        "s.loader.exec_module(m); print(m.digest(m.simulate_tissue(preset='realistic', **m.SMALL)))"
    )
    out = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == first


def test_panel_is_as_sparse_as_a_vendors(large) -> None:
    adata = large.to_adata()
    mean = np.asarray(adata.X.mean(axis=0)).ravel()
    assert adata.n_vars == 300
    assert 0.35 < mean.mean() < 0.7
    assert mean.mean() > 5 * np.median(mean)  # heavy-tailed
    assert 0.8 < 1 - adata.X.nnz / np.prod(adata.shape) < 0.95
    markers = mean[adata.var_names.isin(["HLA-A", "B2M"])]
    assert (markers > np.quantile(mean, 0.95)).all()
    assert 1.5 < mean[(adata.var["causes"] != "").to_numpy()].min() < 6
    assert 0.4 < np.log(large.causes["depth"]).std() < 0.65
    for column in ("condition", "sample", "donor", "fov", "cell_id", "cell_type"):
        assert column in adata.obs
    assert list(adata.obs["donor"].cat.categories) == list(large.config.slides)
    assert (adata.obs["donor"].str.startswith("tumor") == (adata.obs["condition"] == "tumor")).all()
    some = adata.obs["cell_id"].iloc[[3, -2]]
    np.testing.assert_array_equal(large.render(some, output_size=32), adata[[3, -2]].obsm["crops"])


def test_gene_table_declares_causes_and_controls(tissue) -> None:
    genes, sets = tissue.genes, tissue.gene_sets()
    causal = genes["causes"] != ""
    assert set(genes["causes"][causal]) == FEATURES
    assert ((genes["control"] == "") == causal).all()
    assert ((genes["response"] != "") == causal).all()
    assert set(sets) == FEATURES | {"programme", "hidden", "type", "unrelated"}
    assert sorted(g for s in sets.values() for g in s) == sorted(genes.index)
    assert set(genes["programme"][genes["control"] == "programme"]) == set(genes["programme"][causal])
    assert not set(genes["programme"][genes["control"] == "unrelated"]) & set(genes["programme"][causal])
    assert (genes["hidden"][genes["control"] == "hidden"] > 0.5).all()
    assert genes.loc["GBP1", "partner"] == "GBP5"
    with pytest.raises(ValueError, match="n_genes=30"):
        TissueConfig.preset("realistic", n_genes=30)
    with pytest.raises(ValueError, match="preset='real'.*realistic"):
        TissueConfig.preset("real")
    with pytest.raises(TypeError, match="preset"):
        simulate_tissue(preset="realistic", config=TissueConfig())


def test_controls_correlate_as_declared(large) -> None:
    genes, causes = large.genes, large.causes
    mine = (causes["group"] == "normal").to_numpy()
    centred = (
        large.latent[mine]
        - pd.DataFrame(large.latent[mine]).groupby(causes["donor"][mine].to_numpy()).transform("mean").to_numpy()
    )
    corr = pd.DataFrame(np.corrcoef(centred.T), genes.index, genes.index)
    for name in genes.index[genes["causes"] != ""]:
        fellows = genes.index[(genes["control"] == "programme") & (genes["programme"] == genes.loc[name, "programme"])]
        others = genes.index[(genes["control"] == "unrelated")]
        assert corr.loc[name, fellows].mean() > 0.35
        assert abs(corr.loc[name, others].mean()) < 0.1
    area = np.log(causes["nucleus_area"][mine] / causes["type_nucleus_area"][mine]).to_numpy()
    with_area = pd.Series([np.corrcoef(area, centred[:, g])[0, 1] for g in range(len(genes))], genes.index)
    assert with_area[genes["control"] == "hidden"].mean() > 0.2
    assert abs(with_area[genes["control"] == "unrelated"]).mean() < 0.1
    assert np.corrcoef(area, causes["hidden"][mine])[0, 1] > 0.3
    kind = (causes["cell_type"] == "immune")[mine].to_numpy()
    of_type = (genes["type"] == "immune").to_numpy()
    assert (centred[kind][:, of_type].mean(0) - centred[~kind][:, of_type].mean(0)).min() > 1.5


def test_counts_tell_less_than_expression_and_the_hidden_genes_tell_more(large) -> None:
    """Upper bounds of any prediction, slides held out: what a method reaches is judged beside these."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict

    adata = large.to_adata()
    rows = large.causes.index.get_indexer(adata.obs_names)
    slide = adata.obs["donor"].astype(str).to_numpy()
    area = np.log(adata.obs["true_nucleus_area"].to_numpy())

    def told(values: np.ndarray) -> float:
        fit = RidgeCV(10.0 ** np.arange(0, 5))
        x = (values - values.mean(0)) / (values.std(0) + 1e-9)
        return float(np.corrcoef(cross_val_predict(fit, x, area, cv=GroupKFold(6), groups=slide), area)[0, 1])

    counts, latent = np.log1p(adata.X.toarray()), large.latent[rows]
    own = (large.genes["causes"] == "nucleus_area").to_numpy()
    hidden = (large.genes["control"] == "hidden").to_numpy()
    kinds = own | (large.genes["control"] == "type").to_numpy()
    assert 0.35 < told(counts) < told(latent[:, own])
    # Editing them does nothing, and yet they say what the causal gene does not.
    assert told(latent[:, kinds | hidden]) > told(latent[:, kinds]) + 0.02


def test_without_slides_a_confounded_study_credits_genes_that_cause_nothing() -> None:
    from sklearn.linear_model import RidgeCV

    tissue = simulate_tissue(400, preset="confounded", fovs=6, seed=1)
    adata = tissue.to_adata(channels=["DAPI"])
    counts, slide = np.log1p(adata.X.toarray()), adata.obs["donor"].astype(str).to_numpy()
    tumor = (adata.obs["condition"] == "tumor").to_numpy()
    nothing = (tissue.genes["control"] != "").to_numpy()

    def credit(x: np.ndarray, y: np.ndarray) -> float:
        slope = RidgeCV(10.0 ** np.arange(0, 5)).fit(x, y).coef_
        return float((slope * (counts[tumor].mean(0) - counts[~tumor].mean(0)))[nothing].sum())

    y = np.log(adata.obsm["crops"].mean(axis=(1, 2, 3)))
    centred = lambda v: v - pd.DataFrame(v).groupby(slide).transform("mean").to_numpy().reshape(v.shape)
    gap = y[tumor].mean() - y[~tumor].mean()
    assert credit(counts, y) > 0.3 * gap  # the slides' brightness, given to genes
    assert abs(credit(centred(counts), centred(y))) < 0.1 * gap


def test_counterfactual_moves_what_the_genes_cause_and_nothing_else(tissue) -> None:
    mine = (tissue.causes["group"] == "normal").to_numpy()
    for name, genes in tissue.gene_sets().items():
        edited = tissue.counterfactual(genes, "normal", "tumor")
        moved = DERIVED.get(name, {name}) if name in FEATURES else set()
        columns = [c for c in tissue.causes if c not in moved and not c.startswith("latent_")]
        pd.testing.assert_frame_equal(edited.causes[columns], tissue.causes[columns])
        pd.testing.assert_frame_equal(edited.causes[~mine], tissue.causes[~mine])
        if moved:
            assert (edited.causes[name] != tissue.causes[name])[mine].mean() > 0.9
        others = ~tissue.genes.index.isin(genes)
        np.testing.assert_array_equal(edited.latent[:, others], tissue.latent[:, others])
        np.testing.assert_array_equal(edited.latent[~mine], tissue.latent[~mine])


def test_counterfactual_of_one_donor(tissue) -> None:
    edited = tissue.counterfactual("H2AZ1", "normal_2", "tumor")
    moved = (edited.causes["nucleus_area"] != tissue.causes["nucleus_area"]).to_numpy()
    np.testing.assert_array_equal(moved, (tissue.causes["donor"] == "normal_2").to_numpy())
    with pytest.raises(KeyError, match="'normal_9'.*normal_2"):
        tissue.counterfactual("H2AZ1", "normal_9", "tumor")


def test_a_pair_acts_only_together(large) -> None:
    sets = {"GBP1": ["GBP1"], "GBP5": ["GBP5"], "both": ["GBP1", "GBP5"]}
    table = large.true_effects(sets, directions=[("normal", "tumor")])
    effect = table[table["feature"] == "granules"].set_index("genes")["change"]
    assert effect["both"] > 1.6 * (effect["GBP1"] + effect["GBP5"])
    other = table[table["feature"] != "granules"]
    assert (other["change"] == 0).all()


def test_true_effects_of_every_set_and_direction(large) -> None:
    table = large.true_effects()
    assert len(table) == 2 * (len(large.gene_sets()) + 1) * len(FEATURES)
    for (name, source, target), part in table.groupby(["genes", "source", "target"]):
        moved = set(part["feature"][part["change"] != 0])
        if name == "all genes":
            assert len(moved) == len(FEATURES)
            share = part.set_index("feature")["share"]
            # The hidden cause moves the area too, and no gene carries it.
            assert 0.6 < share["nucleus_area"] < 0.95
            # The slides' shares of cell types, which differ by chance, move what types look like.
            assert (np.abs(share.drop("nucleus_area") - 1) < 0.25).all(), (source, target)
            assert (np.abs(share[["marker_level", "lobes", "membrane"]] - 1) < 0.05).all()
        else:
            assert moved == ({name.replace("marker", "marker_level")} if name in FEATURES else set())
    seen = large.true_effects({"marker": ["HLA-A", "B2M"]}, directions=[("normal_1", "tumor_1")], size=64)
    one = large.true_effect(["HLA-A", "B2M"], "normal_1", "tumor_1")
    assert seen.set_index("feature").loc["marker", "after"] == one.loc["marker", "edited"]


def test_a_response_saturates(large) -> None:
    from sst.datasets.simulator._features import draw_features

    g = large.genes.index.get_loc("HMGB2")
    steps = []
    for up in (0.0, 0.5, 1.0, 3.0):
        latent = large.latent.copy()
        latent[:, g] += up
        steps.append(np.log(draw_features(large.config, large.genes, latent, large.causes)["texture"]).mean())
    first, second, third = np.diff(steps)
    assert first > 1.5 * second
    assert third < 0.5 * second


def test_slides_differ_and_follow_the_group_only_where_confounded(tissue) -> None:
    config = TissueConfig.preset("confounded", **SMALL)
    confounded = simulate_tissue(config=config)
    assert len(tissue.slides) == 6
    assert tissue.slides["brightness"].nunique() == 6
    log = np.log(
        confounded.slides[["brightness", "blur", "depth", "background"]]
        / tissue.slides[["brightness", "blur", "depth", "background"]]
    )
    gap = log[confounded.slides["group"] == "tumor"].mean() - log[confounded.slides["group"] == "normal"].mean()
    np.testing.assert_allclose(gap, [config.confounding, config.confounding, -config.confounding, config.confounding])
    # Only what the slides do to pictures and depth: the biology is the same.
    np.testing.assert_array_equal(confounded.latent, tissue.latent)


def test_more_groups_lie_between_the_first_and_the_last() -> None:
    tissue = simulate_tissue(preset="realistic", groups=("normal", "dysplasia", "tumor"), **{**SMALL, "n_cells": 150})
    assert tissue.config.slides[3:6] == ("dysplasia_1", "dysplasia_2", "dysplasia_3")
    area = tissue.causes.groupby("group")["nucleus_area"].mean()
    assert area["normal"] < area["dysplasia"] < area["tumor"]
    plain = simulate_tissue(n_cells=20, fovs=1, groups=("a", "b", "c"))
    assert list(plain.to_adata().obs["condition"].cat.categories) == ["a", "b", "c"]
    assert plain.genes.loc["B2M", "mean_a"] < plain.genes.loc["B2M", "mean_b"] < plain.genes.loc["B2M", "mean_c"]


IN_STAIN = {  # where an edit of a feature's genes can be seen
    "marker": {"CD298/B2M"},
    "membrane": {"CD298/B2M"},
    "granules": {"CD298/B2M"},
    "vacuoles": {"CD298/B2M", "rRNA", "PanCK", "CD45"},
    "texture": {"DAPI"},
}


def test_an_effect_is_seen_in_its_stains_and_nowhere_else(tissue) -> None:
    names = list(tissue.causes.index[tissue.causes["donor"] == "normal_1"])
    before = tissue.render(names, channels=CHANNELS)
    for name, genes in tissue.gene_sets().items():
        after = tissue.counterfactual(genes, "normal", "tumor").render(names, channels=CHANNELS)
        changed = {c for c, moved in zip(CHANNELS, (after != before).any(axis=(0, 2, 3)), strict=True) if moved}
        # A nucleus of another shape hides other cytoplasm.
        assert changed == (IN_STAIN.get(name, set(CHANNELS)) if name in FEATURES else set()), name
        if name in FEATURES:  # no effect is lost in the noise
            seen = {c: np.abs(after[:, i].astype(float) - before[:, i]).mean() for i, c in enumerate(CHANNELS)}
            assert max(seen.values()) > 1.0, name


def test_nuclei_have_the_area_that_was_drawn() -> None:
    config = TissueConfig.preset("realistic", n_cells=40, n_genes=80, donors=1, fovs=1, fov_size=1400)
    tissue = simulate_tissue(config=config)
    view = tissue.draw("tumor", 1, transcripts=False)
    at = view.causes[["nucleus_x", "nucleus_y"]].to_numpy()
    keep = ((at > 45) & (at < 1355)).all(axis=1)
    drawn = np.bincount(view.labels[view.compartments == 1], minlength=41)[1:][keep]
    wanted = view.causes["nucleus_area_px"].to_numpy()[keep]
    number = view.causes["nuclei"].to_numpy()[keep]
    assert (number == 2).any()
    np.testing.assert_allclose(drawn[number == 1] / wanted[number == 1], 1, atol=0.06)
    # Two nuclei touch, and what both cover counts once.
    assert (drawn[number == 2] / wanted[number == 2] > 0.85).all()


def test_lobes_bays_and_pairs_are_drawn() -> None:
    from dataclasses import replace

    config = TissueConfig.preset("realistic", n_cells=30, n_genes=80, donors=1, fovs=1, fov_size=1200)
    tissue = simulate_tissue(config=config)
    flat = {"lobes": 0.0, "nuclei": 1, "bend": 0.0, "elongation": 1.2, "nucleus_area_px": 600.0}

    def solidity(**changes: float) -> float:
        causes = tissue.causes.assign(**{**flat, **changes})
        view = replace(tissue, causes=causes).draw("normal", 1, transcripts=False)
        out = []
        for label in range(1, 31):
            y, x = np.nonzero((view.labels == label) & (view.compartments == 1))
            if len(x) > 400:
                hull = ConvexHull(np.column_stack([x, y])[:, :2] + 0.0).volume
                out.append(len(x) / hull)
        return float(np.median(out))

    plain = solidity()
    assert solidity(lobes=0.4) < plain - 0.04
    assert solidity(nuclei=2) < plain - 0.05
    assert solidity(bend=0.3, elongation=2.5) < solidity(elongation=2.5) - 0.02


def test_transcripts_lie_in_their_nucleus(tissue) -> None:
    view = tissue.draw("tumor_1", 1)
    t = view.transcripts
    on = view.compartments[t["y"].astype(int), t["x"].astype(int)] == 1
    nuclear = tissue.genes["nuclear"].to_numpy()[t["gene"]]
    assert on[nuclear > 0.8].mean() > 2 * on[nuclear < 0.4].mean()
    pair = np.flatnonzero(view.causes["nuclei"].to_numpy() == 2) + 1
    own = np.isin(t["source"], pair) & (t["cell"] == t["source"])
    assert own.sum() > 20
    assert 0.03 < (t["source"] == 0).mean() < 0.15
    assert 0.8 < (t["cell"] == t["source"])[t["source"] > 0].mean() < 0.97


@pytest.mark.slow
def test_several_donors_go_through_files(tmp_path) -> None:
    import sst

    config = TissueConfig.preset("realistic", n_cells=60, n_genes=80, donors=2, fovs=2, seed=5)
    tissue = simulate_tissue(config=config)
    paths = tissue.write_cosmx(tmp_path / "cosmx")
    assert [p.name for p in paths] == ["normal_1", "normal_2", "tumor_1", "tumor_2"]
    truth = pd.read_parquet(tmp_path / "cosmx" / "truth.parquet")
    assert len(truth) == 4 * 60
    direct = tissue.to_adata(size=64, output_size=32)
    for k, path in enumerate(paths):
        cut = sst.pp.crop_cells(sst.pp.read_cosmx(path), size=64, output_size=32, channels=["CD298/B2M", "DAPI"])
        mine = direct[direct.obs["donor"] == config.slides[k]]
        order = pd.Index(cut.obs["cell_id"].str.replace("c_1_", f"c_{k + 1}_")).get_indexer(mine.obs["cell_id"])
        assert (order >= 0).all()
        np.testing.assert_array_equal(np.asarray(cut.obsm["crops"])[order], mine.obsm["crops"])
        np.testing.assert_array_equal(cut[order, mine.var_names].X.toarray(), mine.X.toarray())
    bundles = tissue.write_xenium(tmp_path / "xenium")
    assert [p.name for p in bundles] == list(config.slides)
    cut = sst.pp.crop_cells(sst.pp.read_xenium(bundles[3]), size=64, output_size=32)
    assert cut.n_obs > 10
