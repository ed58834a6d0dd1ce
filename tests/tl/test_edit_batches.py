"""Edits that are learnt donor by donor."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from factories import paired_cells

import sst

METHODS = ["ot", "scm", "ot_centered", "mean", "quantile"]


def study(per_donor=40, genes=4, donors=("n1", "n2", "n3", "t1", "t2", "t3")):
    """Donors' own levels on top of the groups'; n3 has twice as many cells."""
    rng = np.random.default_rng(0)
    of = np.repeat(donors, [per_donor * (1 + (d == "n3")) for d in donors])
    adata = paired_cells(len(of), genes)
    adata.obs["donor"] = of
    adata.obs["condition"] = np.where(np.char.startswith(of.astype(str), "n"), "normal", "tumor")
    level = {d: (10 if d[0] == "n" else 20) + 3 * int(d[1]) for d in donors}
    adata.X = rng.poisson([[level[d]] * genes for d in of]).astype(np.float32)
    del adata.obs["split"]
    return adata


def means(adata, layer=None):
    x = adata.X if layer is None else adata.layers[layer]
    return {d: np.asarray(x[(adata.obs["donor"] == d).to_numpy()]).mean(axis=0) for d in adata.obs["donor"].unique()}


@pytest.mark.parametrize("method", METHODS)
def test_one_donor_a_group_is_no_donor(method):
    adata = study(donors=("n1", "t1"))
    sst.tl.edit(adata, method=method, model=None)
    sst.tl.edit(adata, method=method, model=None, batch_key="donor", key_added="by_donor")
    np.testing.assert_array_equal(np.asarray(adata.layers["edited"]), np.asarray(adata.layers["by_donor"]))


def test_each_donor_counts_alike_and_has_its_own_edit():
    adata = study()
    sst.tl.edit(adata, method="mean", model=None, batch_key="donor", clip=False)
    before, after = means(adata), means(adata, "edited")
    tumour = np.mean([before[d] for d in ("t1", "t2", "t3")], axis=0)
    normal = np.mean([before[d] for d in ("n1", "n2", "n3")], axis=0)  # not of the cells: n3 has twice as many
    for donor in before:
        np.testing.assert_allclose(after[donor], tumour if donor[0] == "n" else normal, rtol=1e-5)
    table = adata.uns["edited"]["report"]["batches"]
    assert list(table["batch"]) == ["n1", "n2", "n3", "t1", "t2", "t3"]
    assert table["own"].all()
    assert (table["n_targets"] == 3).all()
    assert table["n_cells"].tolist() == [40, 40, 80, 40, 40, 40]


@pytest.mark.parametrize("method", METHODS)
def test_a_donor_held_out_gets_the_mean_of_the_others(method):
    adata = study()
    adata.obs["split"] = np.where(np.isin(adata.obs["donor"], ["n3", "t3"]), "test", "train")
    sst.tl.edit(adata, method=method, model=None, batch_key="donor", clip=False)
    own = adata.uns["edited"]["report"]["batches"].set_index("batch")["own"]
    assert own[["n1", "n2", "t1", "t2"]].all()
    assert not own[["n3", "t3"]].any()
    rows = (adata.obs["donor"] == "n3").to_numpy()
    each = []
    for a in ("n1", "n2"):
        for b in ("t1", "t2"):
            part = adata[np.isin(adata.obs["donor"], [a, b, "n3"])].copy()
            sst.tl.edit(part, method=method, model=None, source="normal", target="tumor", clip=False)
            each.append(np.asarray(part.layers["edited"][(part.obs["donor"] == "n3").to_numpy()]))
    np.testing.assert_allclose(np.asarray(adata.layers["edited"][rows]), np.mean(each, axis=0), rtol=2e-4, atol=1e-3)


def test_donors_with_both_groups_are_their_own_target():
    adata = study(donors=("n1", "n2", "t1", "t2"))
    adata.obs["patient"] = [d[1] for d in adata.obs["donor"]]
    sst.tl.edit(adata, method="mean", model=None, batch_key="patient", clip=False)
    before, after = means(adata), means(adata, "edited")
    np.testing.assert_allclose(after["n1"], before["t1"], rtol=1e-5)
    np.testing.assert_allclose(after["t2"], before["n2"], rtol=1e-5)


def test_more_groups_subset_and_chosen_genes():
    adata = study()
    adata.obs["condition"] = np.where(adata.obs["donor"] == "t3", "other", adata.obs["condition"])
    sst.tl.edit(adata, genes=["g1"], target="tumor", model=None, batch_key="donor", subset="donor != 'n2'")
    old, new = np.asarray(adata.X), np.asarray(adata.layers["edited"])
    assert np.array_equal(old[:, [0, 2, 3]], new[:, [0, 2, 3]])
    changed = set(adata.obs["donor"][(old != new).any(axis=1)])
    assert changed == {"n1", "n3", "t3"}


def test_replayed_from_what_was_written(tmp_path):
    adata = study()
    sst.tl.edit(adata, model=None, batch_key="donor")
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert back.uns["edited"]["params"]["batch_key"] == "donor"
    sst.tl.replay(back, key_added="again")
    np.testing.assert_array_equal(np.asarray(back.layers["again"]), np.asarray(adata.layers["edited"]))
    again, first = (back.uns[key]["report"]["batches"] for key in ("again", "edited"))
    pd.testing.assert_frame_equal(again, first, check_dtype=False, check_index_type=False, check_column_type=False)


def test_dask_and_blocks_look_up_the_same_donors():
    import dask.array as da

    adata = study()
    sst.tl.edit(adata, model=None, batch_key="donor")
    lazy = study()
    lazy.X = da.from_array(np.asarray(lazy.X), chunks=(17, -1))
    sst.tl.edit(lazy, model=None, batch_key="donor")
    np.testing.assert_allclose(np.asarray(lazy.layers["edited"]), np.asarray(adata.layers["edited"]), rtol=1e-4)


def test_errors_name_the_column_and_the_group():
    adata = study()
    with pytest.raises(KeyError, match="batch_key"):
        sst.tl.edit(adata, model=None, batch_key="slide")
    adata.obs["cell"] = adata.obs_names
    with pytest.raises(ValueError, match="group 'normal': none of the batches"):
        sst.tl.edit(adata, model=None, batch_key="cell")


@pytest.mark.parametrize("options", [{"method": "knockout", "genes": ["g1"]}, {"method": "set", "value": {"g1": 3.0}}])
def test_edits_toward_no_group_learn_from_nobody(options):
    adata = study()
    sst.tl.edit(adata, model=None, **options)
    sst.tl.edit(adata, model=None, batch_key="donor", key_added="by_donor", **options)
    np.testing.assert_array_equal(np.asarray(adata.layers["edited"]), np.asarray(adata.layers["by_donor"]))
