"""Figures of the controls, asserted on what is drawn."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sst
from sst.pl._edit_controls import not_clear_of

mpl.use("Agg")
STAIN = "CD298-B2M_window_mean"


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    X = rng.poisson(np.repeat([[20, 20, 5, 9, 20, 5, 7, 3], [40, 30, 5, 9, 30, 8, 7, 3]], 200, axis=0))
    obs = pd.DataFrame(
        {"condition": np.repeat(["n", "t"], 200), "fov": np.tile(np.repeat(np.arange(5), 40), 2).astype(str)},
        index=[f"c{i}" for i in range(400)],
    )
    adata = ad.AnnData(
        sp.csr_matrix(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(8)])
    )
    adata.uns["crops"] = {"channels": ["CD298/B2M", "DAPI"], "pixel_size": 0.5}
    return adata


def tables(rows: dict[str, tuple[float, float, float, float]], feature: str = STAIN) -> dict[str, pd.DataFrame]:
    """Tables as sst.tl.edit_controls writes them; condition -> mean, half of the interval, of the fields', sd of repeats."""
    shared = {"direction": "n -> t", "feature": feature, "n": 50}
    effects, contrasts = [], []
    edit = rows["edit"][0]
    for condition, (mean, half, fov, sd) in rows.items():
        for out, middle in ((effects, mean), (contrasts, edit - mean)):
            ends = {"low": middle - half, "high": middle + half, "low_fov": middle - fov, "high_fov": middle + fov}
            out.append(shared | {"condition": condition, "mean": middle, "sd_repeats": sd} | ends)
    return {"params": {"genes": ["B2M"], "n_random": 3}, "effects": pd.DataFrame(effects)} | {
        "contrasts": pd.DataFrame(contrasts[1:])
    }


def controls(**changed: tuple[float, float, float, float]) -> dict[str, pd.DataFrame]:
    rows = {
        "edit": (9.0, 1.0, 2.0, np.nan),
        "strength 0": (0.0, 0.0, 0.0, np.nan),
        "random genes": (1.0, 0.5, 0.2, 0.7),
        "half of the source": (-0.5, 0.3, np.nan, np.nan),
    }
    return tables(rows | {name.replace("_", " "): value for name, value in changed.items()})


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.texts]


def test_dots_and_intervals_are_the_table(adata: ad.AnnData) -> None:
    adata.uns["edit_controls"] = controls()
    ax = sst.pl.edit_controls(adata)
    dots = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "o"]
    assert dots == [9.0, 1.0, -0.5]
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "the edit: B2M",
        "other genes, expressed\nalike (3 sets)",
        "toward the other half\nof the same group",
    ]
    ends = [sorted(c.get_segments()[0][:, 0]) for c in ax.collections if hasattr(c, "get_segments")]
    assert [7.0, 11.0] in ends  # of the fields, the wider one
    assert [pytest.approx(0.5), 1.5] in ends  # of the cells, the wider one
    assert [pytest.approx(0.3), pytest.approx(1.7)] in ends  # between repeats
    assert ax.get_xlabel() == "change of CD298/B2M,\nmean in window (grey levels)"
    assert ax.get_title("left") == "n → t"
    assert {"+9.0", "+1.0", "−0.5", "stands clear of its controls", "n = 50 cells"} <= set(texts(ax))
    cells = sst.pl.edit_controls(adata, interval="cells")
    ends = [sorted(c.get_segments()[0][:, 0]) for c in cells.collections if hasattr(c, "get_segments")]
    assert [8.0, 10.0] in ends


@pytest.mark.parametrize(
    ("changed", "close", "said"),
    [
        ({}, [], "stands clear of its controls"),
        ({"random_genes": (1.0, 0.5, 9.0, 0.7)}, ["random genes"], "not clear of: other genes"),  # the interval holds 0
        (
            {"random_genes": (1.0, 0.5, 0.2, 4.1)},
            ["random genes"],
            "not clear of: other genes",
        ),  # other sets could do it
        (
            {"random_genes": (-9.5, 0.5, 0.2, 0.1)},
            ["random genes"],
            "not clear of: other genes",
        ),  # moves more, elsewhere
        ({"half_of_the_source": (8.9, 0.5, 0.5, np.nan)}, ["half of the source"], "not clear of: same group"),
        (
            {"edit": (0.2, 1, 1, np.nan)},
            ["strength 0", "random genes", "half of the source"],
            "no more than its controls",
        ),
    ],
)
def test_what_stands_clear(adata: ad.AnnData, changed, close: list[str], said: str) -> None:
    entry = controls(**changed)
    if "edit" in changed:
        entry["contrasts"][["low", "high", "low_fov", "high_fov"]] = [-1.0, 1.0, -1.0, 1.0]
    effects, contrasts = (entry[k].set_index("condition") for k in ("effects", "contrasts"))
    assert not_clear_of(effects, contrasts) == close
    adata.uns["edit_controls"] = entry
    assert said in texts(sst.pl.edit_controls(adata, conditions=list(contrasts.index)))


def test_panels_of_real_controls(adata: ad.AnnData, tmp_path) -> None:
    sst.tl.edit_controls(adata, ["g0"], method="mean", model=None, n_random=3, n_shuffles=2, n_resamples=200)
    axes = sst.pl.edit_controls(adata)
    assert [a.get_title("left") for a in axes] == ["n → t"] * 2 + ["t → n"] * 2
    assert axes[0].get_xlim() == axes[2].get_xlim() != axes[1].get_xlim()
    assert "transcripts a cell" in axes[0].get_xlabel()
    assert [t.get_text() for t in axes[1].get_yticklabels()] == [""] * 4
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    figure = sst.pl.edit_controls(again, "toward_target", directions="n -> t", return_fig=True)
    figure.savefig(tmp_path / "f.pdf")
    assert len(figure.axes) == 1
    _, given = plt.subplots(1, 2)
    assert sst.pl.edit_controls(again, directions=["t -> n"], ax=given)[0] is given[0]
    for wrong, message in (
        ({"features": "area"}, "'area' was not measured"),
        ({"directions": ["n -> x"]}, "'n -> x' was not measured"),
        ({"conditions": ["fade"]}, "'fade' was not measured"),
        ({"key": "absent"}, "key='absent'"),
    ):
        with pytest.raises(KeyError, match=message):
            sst.pl.edit_controls(again, **wrong)
    with pytest.raises(ValueError, match="interval='both'"):
        sst.pl.edit_controls(again, interval="both")
    again.uns["other"] = {"params": {}}
    with pytest.raises(KeyError, match=r"run sst\.tl\.edit_controls"):
        sst.pl.edit_controls(again, key="other")


def test_fading_is_named_where_it_does_something(adata: ad.AnnData) -> None:
    adata.uns["edit_controls"] = controls(strength_0=(3.0, 0.1, 0.1, np.nan))
    adata.uns["edit_controls"]["params"]["model_kind"] = "inversion"
    labels = [t.get_text() for t in sst.pl.edit_controls(adata).get_yticklabels()]
    assert labels[-1] == "fading of the pixels'\ncode alone"


def test_confounds(adata: ad.AnnData, tmp_path) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(40, 5, (400, 2, 16, 16))
    images[200:] += 30
    adata.obsm["crops"] = np.clip(images, 0, 255).astype(np.uint8)
    adata.uns["crops"]["limits"] = {"low": {"n": [0, 1], "t": [2, 3]}, "high": {"n": [100, 200], "t": [150, 250]}}
    sst.tl.confound_report(adata, n_cells=150)
    axes = sst.pl.confound_report(adata)
    assert [a.get_title("left") for a in axes] == [
        "Told apart without biology?",
        "Sequenced alike?",
        "Stained and exposed alike?",
        "Genes: left at equal depth?",
    ]
    found = adata.uns["confound_report"]["prediction"]["balanced_accuracy"]
    assert [p.get_x() + p.get_width() for p in axes[0].patches] == pytest.approx(found.tolist())
    assert texts(axes[0])[0] == "100 %"  # the background gives the slide away
    assert [t.get_text() for t in axes[2].get_yticklabels()] == ["CD298/B2M", "DAPI"]
    assert "t  2 to 150" in texts(axes[2])
    assert axes[3].get_yticklabels()[0].get_text() == "g0"  # differs most
    only = sst.pl.confound_report(adata, ["g3", "g0"], panels="genes")
    assert [t.get_text() for t in only.get_yticklabels()] == ["g3", "g0"]
    raw = adata.uns["confound_report"]["genes"].set_index("gene")["log2_fold"]
    assert only.get_lines()[1].get_xdata() == pytest.approx(raw[["g3", "g0"]].to_numpy())
    adata.write_h5ad(tmp_path / "a.h5ad")
    sst.pl.confound_report(ad.read_h5ad(tmp_path / "a.h5ad"), return_fig=True).savefig(tmp_path / "f.pdf")
    with pytest.raises(KeyError, match="'effects' is not in"):
        sst.pl.confound_report(adata, panels=["effects"])
    with pytest.raises(KeyError, match="'g99' was not examined"):
        sst.pl.confound_report(adata, "g99")


def test_confounds_with_controls(adata: ad.AnnData) -> None:
    sst.tl.edit_controls(adata, ["g3"], model=None, source="n", target="t", n_random=2, n_shuffles=1, n_resamples=100)
    sst.tl.confound_report(adata, n_cells=100)
    axes = sst.pl.confound_report(adata)
    assert axes[-1].get_title("left") == "Edit: left beside its control?"
    assert axes[-2].get_yticklabels()[0].get_text() == "g3"  # the edited gene first
    rows = adata.uns["confound_report"]["effects"]
    undecided = (rows["remaining_low"] <= 0) & (rows["remaining_high"] >= 0) & (rows["control"] == "shuffled labels")
    ax = sst.pl.confound_report(adata, panels="effects", control="shuffled labels")
    assert texts(ax).count("undecided: hardly moved") == undecided.sum()
    with pytest.raises(KeyError, match="control='luck'"):
        sst.pl.confound_report(adata, panels="effects", control="luck")


def test_limits_of_slides_with_gains_lie_on_the_shared_scale():
    from sst.pl._crops_qc import _shared

    limits = {"low": {"a": [10.0]}, "high": {"a": [110.0]}, "shared_low": [20.0], "gain": {"a": [2.0]}}
    assert _shared(limits, "low", "a", 0) == 20
    assert _shared(limits, "high", "a", 0) == 220
    del limits["gain"]
    assert _shared(limits, "high", "a", 0) == 110
