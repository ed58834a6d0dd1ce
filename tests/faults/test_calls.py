"""Odd arguments to every public function: a result, or an error of ours that names the argument or the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
from calls import cells, functions, odd_call, run
from factories import small_gan

import sst
from sst import _keys
from sst._arguments import checked

if TYPE_CHECKING:
    from pathlib import Path


def report(found: list[str]) -> str:
    return f"{len(found)} calls ended otherwise:\n" + "\n".join(found[:40])


def test_odd_calls() -> None:
    found = run(500, seed=0)
    assert not found, report(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_odd_calls(seed: int) -> None:
    found = run(1000, seed)
    assert not found, report(found)


def test_the_generator_reaches_every_argument() -> None:
    rng = np.random.default_rng(0)
    every = functions()
    assert len(every) > 50
    hit = {
        name: {p for _ in range(60) for p in odd_call(name, every[name], rng)[1]}
        for name in ("metrics.kid", "editing.halves")
    }
    assert hit["metrics.kid"] >= {"x", "y", "degree", "gamma", "n_subsets", "seed"}
    assert hit["editing.halves"] == {"mask", "clusters", "seed"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seed", -1, "seed=-1"),
        ("seed", float("nan"), "seed=nan"),
        ("seed", "one", "seed='one'"),
        ("n_random", 1e9, "n_random=1000000000.0"),
        ("n_resamples", 10**9, "n_resamples=1000000000"),
        ("strength", "much", "strength='much'"),
        ("strength", float("inf"), "strength=inf"),
        ("clip", "yes", "clip='yes'"),
        ("key_added", "a/b", "key_added='a/b' holds a '/'"),
        ("key_added", "", "key_added='' is empty"),
        ("key_added", "..", "is a folder's"),
        ("key_added", "a\0b", "control character"),
        ("key_added", "k" * 400, "more than 200 bytes"),
        ("key_added", 3, "key_added=3"),
        ("genes", 3.5, "genes=3.5"),
        ("genes", [3], "genes"),
        ("adata", None, "adata"),
    ],
)
def test_errors_name_the_argument(name: str, value: Any, says: str) -> None:
    arguments = {"adata": cells(), "genes": ["g0"], "model": None} | {name: value}
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        sst.tl.edit_controls(**arguments)


@pytest.mark.parametrize(
    ("call", "arguments", "says"),
    [
        (sst.pp.crop_cells, {"sdata": 3, "size": 8}, "sdata: expected an AnnData or a SpatialData"),
        (sst.pp.read_cosmx, {"path": 3}, "path=3: expected a path"),
        (sst.pp.read_xenium, {"path": "nowhere", "min_qv": "high"}, "min_qv='high'"),
        (sst.pp.rescale_intensity, {"limits": [None]}, "limits=[None]: expected a mapping"),
        (sst.pp.rescale_intensity, {"limits": {"low": 1}}, "limits has ['low']"),
        (sst.pp.train_test_split, {"seed": -1}, "seed=-1"),
        (sst.io.open_store, {"path": 1.5}, "path=1.5: expected a path"),
        (sst.io.write_store, {"path": "x", "overwrite": "no"}, "overwrite='no'"),
    ],
)
def test_what_reads_and_prepares_names_its_arguments(call: Any, arguments: dict[str, Any], says: str) -> None:
    given = {} if {"sdata", "path"} & set(arguments) and call is not sst.io.write_store else {"adata": cells()}
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        call(**given, **arguments)


def test_a_bound_on_work_is_no_bound_on_sense() -> None:
    @checked
    def draws(repeats: int = 4, max_seconds: float | None = None) -> tuple[Any, Any]:
        return repeats, max_seconds

    assert draws(np.int64(10_000)) == (10_000, None)
    assert draws(4.0, max_seconds=float("inf")) == (4, float("inf"))
    with pytest.raises(ValueError, match=r"repeats=10001 lies outside \[1, 10000\]"):
        draws(10_001)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("CD298/B2M", "CD298-B2M"),
        ("", "_"),
        ("..", "_"),
        (" ", "-"),
        ("a\0b", "a-b"),
        ("k" * 400, "k" * 100),
        ("é" * 400, "é" * 50),
        (3, "3"),
    ],
)
def test_names_of_groups_and_channels_become_columns(name: Any, column: str) -> None:
    assert _keys.column_name(name) == column
    assert _keys.check_name("key", _keys.column_name(name)) == column


@pytest.mark.parametrize("groups", [("tumor/edge", "normal"), ("", "normal"), ("..", "a/b"), ("g" * 300, "h" * 300)])
def test_odd_names_of_groups_are_written_and_read(groups: tuple[str, str], tmp_path: Path) -> None:
    adata = cells()
    adata.obs["condition"] = np.array(groups)[np.arange(24) % 2]
    adata.obs["condition"] = adata.obs["condition"].astype("category")
    adata.uns["crops"]["channels"] = ["a/b", "DAPI"]
    gan = small_gan(adata)
    sst.tl.edit(adata, ["g0"], method="mean", model=gan)
    sst.tl.fidelity(adata, clip=None, n_max=6, features=["nucleus_area"])
    sst.tl.rank_genes_effect(adata, "DAPI_window_mean", model=gan, n_cells=4)
    sst.tl.confound_report(adata, n_cells=12, n_folds=2)
    sst.tl.distances(adata, repeats=1, features="pixel-pca", metrics=("frechet",), keys=["crops", "edited"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert set(again.uns["fidelity"]["correlations"]["group"].astype(str)) == set(groups)
    sst.tl.replay(again, model=gan)
    np.testing.assert_array_equal(again.layers["edited"].toarray(), adata.layers["edited"].toarray())
