from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sst.cli import run
from sst.cli._demo_input import DemoInput
from sst.cli._demo_measure import measure
from sst.cli._demo_report_cells import cut_notice

if TYPE_CHECKING:
    from pathlib import Path

EDITS = {"all": "edited", "chosen": "edited_chosen", "null": "edited_null"}


@pytest.mark.slow
def test_demo_runs_from_simulation_to_report(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    small = ["--cells", "240", "--iterations", "2", "--seed", "3", "--out", str(out)]
    assert run(["--quiet", "demo", *small]) == 0

    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == metrics["steps_editor"] == 2
    assert metrics["cut_by_time"] == {}
    for by in metrics["this_cell"].values():
        assert set(by) == set(EDITS)
        for one in by.values():
            assert set(one) == {"psnr_to_truth", "psnr_no_edit", "psnr_rival", "recovered", "r"}
            assert one["psnr_no_edit"] > 10
            assert set(one["recovered"]) == set(one["r"]) == {"marker", "nucleus_area"}
        assert by["null"]["recovered"] == {"marker": None, "nucleus_area": None}
    assert metrics["wall_s"] > 0
    for edit in EDITS:
        assert set(metrics["gap_closed"][edit]) == {"normal->tumor", "tumor->normal"}
        for features in metrics["gap_closed"][edit].values():
            assert set(features) == {"marker", "nucleus_area"}
    assert set(metrics["truth_recovered"]) == {"chosen"}
    assert set(metrics["fidelity"]) == {"real", "generated"}
    assert metrics["fidelity"]["real"]["nucleus_area"] > 0.5  # the simulator's cause shows in real cells

    edited = ad.read_zarr(out / "edited.zarr")
    assert set(edited.obs["split"]) >= {"train", "test"}
    assert set(edited.obs["condition"]) == {"normal", "tumor"}
    for key in ("crops", "edited", "edited_chosen", "generated", "generated_edited"):
        assert edited.obsm[key].shape == (edited.n_obs, 2, 32, 32)
        assert edited.obsm[key].dtype == np.uint8
    assert edited.layers["edited"].shape == edited.shape

    page = (out / "report.html").read_text()
    assert "too few to learn much" in page
    assert page.count("data:image/") >= 9
    assert page.index("This cell") < page.index("The generator")
    assert not list(out.glob(".cells-*"))

    assert run(["--quiet", "demo", *small]) == 2  # an earlier run is never overwritten


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("bundle", ["xenium_breast_v1/outs", "cosmx_lung12/Lung12"])
def test_demo_runs_on_real_bundles(bundle: str, realdata: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert run(["--quiet", "demo", "--data", str(realdata / bundle), "--iterations", "2", "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert not {"truth_recovered", "this_cell"} & set(metrics)  # nobody knows it
    assert min(metrics["n_test"].values()) >= 3
    assert "no number below is a finding" in (out / "report.html").read_text()
    assert ad.read_zarr(out / "edited.zarr").obs["condition"].nunique() == 2


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--quiet", "demo", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "a")]) == 2
    assert "nowhere" in capsys.readouterr().err
    three = [str(tmp_path)] * 3
    assert run(["--quiet", "demo", "--data", *three, "--out", str(tmp_path / "b")]) == 2
    assert "at most two folders" in capsys.readouterr().err
    assert run(["--quiet", "edit", str(tmp_path / "no.zarr"), "--out", str(tmp_path / "c.zarr")]) == 2
    assert "no.zarr" in capsys.readouterr().err


def _cells(n: int = 40) -> ad.AnnData:
    """Two groups of n held-out cells whose features are written by hand."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"condition": pd.Categorical(np.repeat(["a", "b"], n)), "split": "test"}, index=[f"c{i}" for i in range(2 * n)]
    )
    driver = rng.poisson(20, size=2 * n)
    real = {"marker": np.repeat([10.0, 20.0], n) + driver, "area": np.repeat([100.0, 80.0], n) - driver}
    shift = {"edited": 1.0, "edited_chosen": 0.5, "edited_null": 0.0}
    sign = np.repeat([1.0, -1.0], n)
    gap = {k: v[n:].mean() - v[:n].mean() for k, v in real.items()}
    for key in ("crops", "generated", *shift):
        moved = {k: real[k] + sign * shift.get(key, 0.0) * gap[k] for k in real}
        obs[f"{key}_M-1_window_mean"] = moved["marker"]
        obs[f"{key}_nucleus_area"] = moved["area"]
    obs.iloc[0, obs.columns.get_loc("edited_nucleus_area")] = np.nan  # a nucleus that was not found
    x = sp.csr_matrix(np.column_stack([driver, rng.poisson(5, size=2 * n)]).astype(np.float32))
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=["driver", "other"]))


def test_measure_gives_the_share_of_the_gap() -> None:
    data = DemoInput(
        adata=_cells(),
        groupby="condition",
        groups=("a", "b"),
        chosen=["driver"],
        null=["other"],
        drivers={"marker": ["driver"], "nucleus_area": ["driver"]},
        marker="M/1",
        nucleus="DAPI",
        origin="",
        code="",
        train_seconds=1.0,
    )
    found = measure(data, edits=EDITS, truths={})
    for name, share in (("all", 1.0), ("chosen", 0.5), ("null", 0.0)):
        for direction in ("a->b", "b->a"):
            assert found["gap_closed"][name][direction] == pytest.approx({"marker": share, "nucleus_area": share})
    assert found["fidelity"]["real"] == {"marker": 1.0, "nucleus_area": -1.0}
    assert found["n_test"] == {"a": 40, "b": 40}
    json.dumps(found)


def test_a_training_that_time_cut_short_is_said() -> None:
    cut = {"gan": {"steps": 3900, "of": 4000}, "editor": {"steps": 1000, "of": 2500}}
    said = cut_notice({"cut_by_time": cut})
    assert "the editor at 1,000 of 2,500 steps" in said
    assert "generator at" not in said  # near enough
    assert cut_notice({"cut_by_time": {}}) == ""
