"""The benchmark: the truth wins, gene sets and controls are those of the tissue, and everything is written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sst.cli import run
from sst.tl._benchmarking import Fitted, Measured, leaderboard, make_cells, measure_set
from sst.tl._measuring import FeatureReader


@pytest.fixture(scope="module")
def cells():
    return make_cells("easy", seed=0, n_cells=300, n_test=40, sets=["all", "marker", "nucleus_area", "unrelated"])


def test_cells_and_truth(cells):
    assert list(cells.sets) == ["all", "marker", "nucleus_area", "unrelated"]
    assert cells.controls == ("unrelated",)
    assert cells.sets["marker"] == ["B2M", "HLA-A"]
    assert set(cells.sets["unrelated"]) == {"APOA1", "TTR", "SERPINA1", "MALAT1"}
    assert cells.adata.obsm["crops"].dtype == np.uint8
    own = cells.adata.obsm["crops"][cells.test]
    np.testing.assert_array_equal(cells.truth("unrelated"), own)
    marker = cells.truth("marker")
    np.testing.assert_array_equal(
        marker[:, 1], own[:, 1]
    )  # the nucleus' channel stays, bit for bit: one scale for both
    change = (marker[:, 0].astype(float) - own[:, 0]).mean((1, 2))
    tumor = (cells.adata.obs["condition"][cells.test] == "tumor").to_numpy()
    assert (change[tumor] < 0).mean() > 0.9
    assert (change[~tumor] > 0).mean() > 0.9


class Oracle:
    """Knows the truth of one gene set, and draws it for any edit."""

    starts_from = "crop"
    adjusted_for = ""
    shrinkage = 0.0
    free_of_noise = False

    def __init__(self, images):
        self.images = images

    def generate(self, data, **_):
        return self.images

    def read_beyond(self):
        import contextlib

        return contextlib.nullcontext()


def test_the_truth_wins(cells):
    measured = Measured(cells, FeatureReader(cells.adata))
    rows = []
    for name in ("marker", "unrelated"):
        models = {"oracle": [Fitted(Oracle(cells.truth(name)), 1.0)] * 2}
        found, pictures = measure_set(
            measured, name, models, latent=(False, True), show=3, n_resamples=50, level=0.95, seed=0
        )
        rows += found
        assert set(pictures) == {"real", "truth", "no edit", "oracle", "oracle, latent"}
        assert pictures["oracle"].shape == (3, 2, 32, 32)
    table = leaderboard(pd.DataFrame(rows), cells.controls).set_index(["method", "latent"])
    oracle = table.loc[("oracle", True)]
    assert oracle["marker"] == pytest.approx(1)
    assert oracle["miss"] == pytest.approx(0)
    assert oracle["r"] == pytest.approx(1)
    assert oracle["unrelated"] == 0
    none = table.loc[("no edit", False)]
    assert none["marker"] == 0
    assert none["psnr"] == pytest.approx(none["psnr_no_edit"])
    assert oracle["psnr"] == 100


def test_command(tmp_path, capsys):
    arguments = [
        "--quiet",
        "benchmark",
        "--preset",
        "easy",
        "--cells",
        "250",
        "--test-cells",
        "25",
        "--methods",
        "nearest",
        "ridge",
        "morph",
    ]
    arguments += ["--sets", "marker", "unrelated", "--out", str(tmp_path)]
    assert run(arguments) == 0
    assert "| morph | True |" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "leaderboard.csv")
    assert set(rows["method"]) == {"no edit", "nearest", "ridge", "morph"}
    assert {"share", "share_low", "share_high", "r", "psnr", "seconds", "of_gap", "n_clusters"} <= set(rows)
    assert rows.loc[rows["method"] == "ridge", "psnr"].isna().all()
    assert (tmp_path / "leaderboard.html").read_text().count("<img") >= 1
    assert run(arguments) == 0  # models are used again
    assert run([*arguments[:-5], "--sets", "nonsense", "--out", str(tmp_path)]) == 2
