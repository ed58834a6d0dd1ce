from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import sst
from sst.tl._measuring import fields_of


def test_slides_may_number_their_fields_alike() -> None:
    obs = pd.DataFrame({"sample": ["a", "a", "b", "b"], "fov": ["1", "2", "1", "2"], "donor": ["d", "d", "d", "e"]})
    adata = ad.AnnData(np.ones((4, 1), np.float32), obs=obs.set_index(pd.Index(list("wxyz"))))
    assert len(set(fields_of(adata, "fov"))) == 4
    assert list(fields_of(adata, "donor")) == ["d", "d", "d", "e"]
    assert fields_of(adata, "tile") is None


def test_intervals_of_an_edit_are_over_the_fields_of_all_slides() -> None:
    rng = np.random.default_rng(0)
    n = 120
    slide = np.arange(n) // 20  # six slides, three a group
    X = rng.poisson(5.0 + 3.0 * rng.random(6)[slide][:, None], (n, 12)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "condition": np.where(slide < 3, "a", "b"),
            "sample": slide.astype(str),
            "fov": (np.arange(n) % 2).astype(str),
        },
        index=[str(i) for i in range(n)],
    )
    adata = ad.AnnData(sp.csr_matrix(X), obs=obs)
    adata.obs["field"] = [f"{s}:{f}" for s, f in zip(obs["sample"], obs["fov"], strict=True)]
    features = {"first": lambda values: values[:, 0]}
    found = {}
    for fovs in ("fov", "field", "sample"):
        sst.tl.edit_controls(adata, ["0"], method="ot", model=None, features=features, fovs=fovs, key_added=fovs)
        effects = adata.uns[fovs]["effects"]
        found[fovs] = effects.loc[effects["condition"] == "edit", ["low_fov", "high_fov"]].to_numpy()
    np.testing.assert_array_equal(found["fov"], found["field"])
    assert (found["fov"] != found["sample"]).any()
