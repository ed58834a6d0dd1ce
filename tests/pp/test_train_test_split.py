"""Whole regions are held out, and no window of the training part touches one of the test part."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sst


def make(n=400, fovs=12, samples=2, seed=0, size=40):
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(np.zeros((n, 1), np.float32))
    adata.obs["sample"] = pd.Categorical([f"s{i % samples}" for i in range(n)])
    fov = rng.integers(0, fovs, n)
    adata.obs["fov"] = pd.Categorical([f"F{i:03d}" for i in fov])
    px = rng.uniform(0, 500, (n, 2))
    adata.obsm["spatial_px"] = px
    adata.obsm["spatial"] = (px + np.c_[fov * 440, np.zeros(n)]) * 0.5  # FOVs overlap by 60 px
    adata.uns["crops"] = {"size": size, "size_global": size * 0.5}
    return adata


def overlaps(adata, size):
    """Pairs (train, test) of the same FOV or sample whose windows share area, the slow way."""
    split = adata.obs["split"].to_numpy()
    corner = np.floor(adata.obsm["spatial_px"])
    world = adata.obsm["spatial"]
    bad = 0
    for i in np.flatnonzero(split == "train"):
        for j in np.flatnonzero(split == "test"):
            if adata.obs["sample"].iloc[i] != adata.obs["sample"].iloc[j]:
                continue
            same = adata.obs["fov"].iloc[i] == adata.obs["fov"].iloc[j]
            bad += same and (np.abs(corner[i] - corner[j]) < size).all()
            bad += (np.abs(world[i] - world[j]) < size * 0.5).all()
    return bad


@pytest.mark.parametrize("by", ["fov", "tile", "sample"])
def test_split(by):
    adata = make(samples=5 if by == "sample" else 2)
    assert sst.pp.train_test_split(adata, by=by, test_size=0.2, tile_size=250, seed=3) is None
    split = adata.obs["split"]
    assert set(split.cat.categories) == {"train", "test", "dropped"}
    assert abs((split == "test").mean() - 0.2) < 0.05
    region = {
        "fov": adata.obs["fov"].astype(str),
        "sample": "",
        "tile": adata.obs.get("tile", adata.obs["fov"]).astype(str),
    }[by]
    pairs = pd.DataFrame(
        {"r": adata.obs["sample"].astype(str) + (region if by != "sample" else ""), "t": split == "test"}
    )
    assert (pairs.groupby("r")["t"].nunique() == 1).all()  # regions are never divided
    assert overlaps(adata, 40) == 0
    report = adata.uns["split"]["report"]
    assert report["train"] + report["test"] + report["dropped"] == adata.n_obs
    assert (report["dropped"] > 0) == (by != "sample")
    assert adata.uns["split"]["params"]["by"] == by


def test_only_overlapping_cells_are_dropped():
    adata = make(n=200)
    sst.pp.train_test_split(adata, by="fov")
    before = int((adata.obs["split"] == "dropped").sum())
    assert 0 < before < 60
    for i in np.flatnonzero(adata.obs["split"] == "dropped"):
        one = adata.copy()
        one.obs["split"] = np.where(np.arange(200) == i, "train", one.obs["split"].astype(str))
        assert overlaps(one, 40) > 0


def test_seed_and_samples():
    splits = []
    for seed in (0, 0, 1):
        adata = make()
        sst.pp.train_test_split(adata, seed=seed)
        splits.append(adata.obs["split"].to_numpy())
        held = adata.obs[adata.obs["split"] == "test"].groupby("sample", observed=True).size()
        assert len(held) == 2
    assert (splits[0] == splits[1]).all()
    assert (splits[0] != splits[2]).any()


def test_one_region_is_an_error():
    adata = make(fovs=1)
    with pytest.raises(ValueError, match="tile"):
        sst.pp.train_test_split(adata, by="fov")
    with pytest.raises(ValueError, match="'fovs'"):
        sst.pp.train_test_split(adata, by="fovs")
    del adata.obs["sample"]
    with pytest.raises(KeyError, match="sample"):
        sst.pp.train_test_split(adata, by="sample")


def test_survives_writing(tmp_path):
    adata = make()
    sst.pp.train_test_split(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert (back.obs["split"] == adata.obs["split"]).all()


def test_slides_joined_under_one_name_are_told_apart():
    one = make(samples=1)
    one.obs["cell_id"] = [str(i) for i in range(one.n_obs)]
    both = ad.concat({"normal": one, "tumor": one}, label="condition", index_unique="-", uns_merge="same")
    sst.pp.train_test_split(both, by="fov", seed=1)
    held = both.obs[both.obs["split"] == "test"].groupby("condition", observed=True)["fov"].unique()
    assert len(held) == 2  # regions of either slide, drawn for themselves
    assert set(held["normal"]) != set(held["tumor"])
    dropped = (both.obs["split"] == "dropped").mean()
    assert dropped < 0.15  # a window of one slide does not overlap the same place of the other


def test_validation_regions_stand_apart_from_both():
    adata = make(n=600)
    sst.pp.train_test_split(adata, test_size=0.2, val_size=0.15, seed=3)
    split = adata.obs["split"].astype(str).to_numpy()
    assert abs((split == "test").mean() - 0.2) < 0.05
    assert 0.05 < (split == "val").mean() < 0.2  # less what overlaps the test cells
    regions = {
        k: set(adata.obs["sample"].astype(str)[split == k] + adata.obs["fov"].astype(str)[split == k])
        for k in ("train", "val", "test")
    }
    assert not regions["val"] & regions["test"]
    assert not regions["val"] & regions["train"]
    for a, b in (("train", "test"), ("train", "val"), ("val", "test")):
        pair = adata[np.isin(split, [a, b])].copy()
        pair.obs["split"] = np.where(pair.obs["split"].astype(str) == a, "train", "test")
        assert overlaps(pair, 40) == 0
    alone = make(n=600)
    sst.pp.train_test_split(alone, test_size=0.2, seed=3)
    assert (
        (alone.obs["split"] == "test").to_numpy() == (split == "test")
    ).all()  # the same cells are reported with and without
    assert list(alone.obs["split"].cat.categories) == ["train", "test", "dropped"]
    with pytest.raises(ValueError, match="val_size=0.9"):
        sst.pp.train_test_split(alone, test_size=0.2, val_size=0.9)


@pytest.mark.parametrize("by", ["sample", "donor"])
def test_whole_donors_of_every_group_are_held_out(by):
    adata = make(samples=6, n=120)
    donor = adata.obs["sample"].astype(str)
    names = sorted(donor.unique())
    adata.obs["condition"] = np.where(donor.isin(names[:3]), "normal", "tumor")
    if by == "donor":  # two slides a donor
        adata.obs["donor"] = donor
        adata.obs["sample"] = donor + np.where(np.arange(adata.n_obs) % 2, "x", "y")
    for seed in range(4):
        sst.pp.train_test_split(adata, by=by, test_size=0.33, seed=seed)
        held = donor[adata.obs["split"] == "test"]
        assert adata.obs.loc[held.index, "condition"].nunique() == 2
        assert held.nunique() == 2
        assert not set(held) & set(donor[adata.obs["split"] == "train"])
    # A donor with cells of both groups: there is nothing to balance.
    adata.obs["condition"] = np.where(np.arange(adata.n_obs) % 3, "normal", "tumor")
    sst.pp.train_test_split(adata, by=by, test_size=0.33)
    assert 1 <= donor[adata.obs["split"] == "test"].nunique() <= 3


def test_windows_are_no_larger_than_they_are_on_a_slide_of_many_fields():
    adata = sst.datasets.simulate_tissue(n_cells=240, fovs=6, n_genes=16).to_adata(size=32, output_size=16)
    sst.pp.train_test_split(adata, by="fov")
    report = adata.uns["split"]["report"]
    assert report["dropped"] == 0  # windows lie inside their fields, which do not overlap
    assert report["train"] + report["test"] == adata.n_obs
