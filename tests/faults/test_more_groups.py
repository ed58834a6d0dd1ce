"""Three groups, two donors each: what takes groups works, or says why not."""

from __future__ import annotations

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
from calls import MODEL, VALID, functions
from factories import SMALL_NETWORKS, paired_cells

import sst
from sst.train import EditorConfig, GANConfig

N = 72
GROUPS = ["edge", "normal", "tumor"]


def study(side=8):
    """Edited, measured cells of three groups and six donors."""
    adata = paired_cells(N, rate=6.0, side=side)
    group = np.arange(N) % 3
    adata.obs["condition"] = [GROUPS[g] for g in group]
    adata.obs["donor"] = adata.obs["sample"] = [
        f"{GROUPS[g]}{k}" for g, k in zip(group, np.arange(N) // 3 % 2, strict=True)
    ]
    adata.obs["split"] = np.where(np.arange(N) // 6 % 2, "test", "train")
    adata.obs["fov"] = (np.arange(N) // 12).astype(str)
    adata.obsm["spatial_px"] = adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 100, (N, 2))
    return adata


@pytest.fixture(scope="module")
def edited():
    adata = study()
    sst.tl.edit(adata, ["g0", "g1"], target="tumor", method="mean", model=MODEL)
    for key in ("crops", "generated", "edited"):
        sst.tl.morphology(adata, key=key)
    return adata


# where there is more than one way to go, these say that the target must be named
NEED_A_TARGET = {"tl.edit", "tl.edit_controls", "tl.evaluate"}
MORE = {"tl.counterfactual_error": {"truth": "edited"}}
# draw or take up what another function has left
AFTER = {
    "pl.edit_controls": ("edit_controls", {"genes": ["g0"], "target": "tumor"}), "pl.confound_report": ("confound_report", {}),
    "pl.rank_genes_effect": ("rank_genes_effect", {}), "pl.dose_response": ("dose_response", {}), "pl.distances": ("distances", {}),
    "pl.evaluation": ("evaluate", {"target": "tumor"}), "pl.transition": ("transition", {}), "pl.training": (None, {}), "pl.training_quality": (None, {}),
}  # fmt: skip


def takes_groups():
    """Functions of an object that know groups, by their own arguments or by what they draw."""
    named = {n: f for n, f in functions().items() if n.startswith(("tl.", "pl.")) and n not in AFTER}
    return [n for n, f in named.items() if {"groupby", "source", "target"} & set(inspect.signature(f).parameters)]


@pytest.mark.parametrize("name", takes_groups())
def test_three_groups(name, edited):
    call = functions()[name]
    adata = edited.copy()
    if name in NEED_A_TARGET:
        with pytest.raises(ValueError, match="3 groups: say which is the target="):
            call(adata, **VALID[name])
        call(adata, **VALID[name], target="tumor")
    else:
        call(adata, **VALID.get(name, {}) | MORE.get(name, {}))
    plt.close("all")


@pytest.mark.parametrize("name", [n for n, (made, _) in AFTER.items() if made])
def test_three_groups_are_drawn(name, edited):
    made, options = AFTER[name]
    adata = edited.copy()
    film = getattr(sst.tl, made)(adata, **VALID[f"tl.{made}"] | options)
    functions()[name](film if made == "transition" else adata)
    plt.close("all")


@pytest.mark.parametrize("name", [n for n, f in functions().items() if "batch_key" in inspect.signature(f).parameters])
def test_three_groups_of_two_donors(name, edited):
    adata = edited.copy()
    call, options = functions()[name], dict(VALID.get(name, {}))
    if name in NEED_A_TARGET:
        options["target"] = "tumor"
    if name == "pp.rescale_intensity":
        adata.obsm["crops"] = adata.obsm["crops"].astype(np.uint16)
        options["groupby"] = "condition"
    call(adata, batch_key="donor", **options)


@pytest.mark.parametrize("train", ["editor", "gan"])
def test_trainings_of_three_groups_and_six_donors(train, tmp_path):
    small = {k: v for k, v in SMALL_NETWORKS.items() if train == "gan" or k.startswith("discriminator")}
    sizes = {} if train == "gan" else {"editor__width": 4, "editor__width_max": 8, "editor__code_dim": 8}
    config = (GANConfig if train == "gan" else EditorConfig).preset("demo").replace(
        **small, **sizes, fit__batch_size=6, fit__iterations=2, fit__log_every=1, fit__evaluate_every=2, fit__sample_every=0
    )  # fmt: skip
    adata = study(side=16)
    model = getattr(sst.tl, f"train_{train}")(adata, batch_key="donor", config=config, out=tmp_path, device="cpu")
    assert model.registry.groups == tuple(GROUPS)
    assert len(model.registry.slides) == 6
    sst.tl.edit(adata, target="edge", batch_key="donor", model=model)
    assert set(adata.uns["edited"]["report"]["batches"]["source"]) == {"normal", "tumor"}
    sst.tl.evaluate(
        adata,
        model=model,
        target="edge",
        batch_key="donor",
        genes=["g0"],
        repeats=1,
        metrics=["frechet"],
        features="pixel-pca",
    )
    for name, column in (("donors", "target"), ("morphology", "target")):
        assert set(adata.uns["evaluation"][name][column]) == {"edge"}
    distances = adata.uns["evaluation"]["distances"]
    assert set(distances["source"]) == set(GROUPS)  # before
    assert set(distances.loc[distances["edit"] != "none", "source"]) == {"normal", "tumor"}
