from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

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
    effect = {
        name: large.true_effect(genes, "normal", "tumor").loc["granules", "change"]
        for name, genes in {"GBP1": ["GBP1"], "GBP5": ["GBP5"], "both": ["GBP1", "GBP5"]}.items()
    }
    assert effect["both"] > 1.6 * (effect["GBP1"] + effect["GBP5"])


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


def test_windows_of_all_stains_keep_what_is_not_edited(tissue) -> None:
    names = list(tissue.causes.index[tissue.causes["group"] == "normal"][:60])
    before = tissue.render(names, channels=CHANNELS)
    nothing = tissue.counterfactual(tissue.gene_sets()["programme"], "normal", "tumor")
    np.testing.assert_array_equal(nothing.render(names, channels=CHANNELS), before)
    marker = tissue.counterfactual(["HLA-A", "B2M"], "normal", "tumor").render(names, channels=CHANNELS)
    changed = (marker != before).any(axis=(0, 2, 3))
    assert dict(zip(CHANNELS, changed, strict=True)) == {c: c == "CD298/B2M" for c in CHANNELS}
