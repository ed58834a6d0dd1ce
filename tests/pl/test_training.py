"""Losses and distances over a training."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from sst.pl import training

mpl.use("Agg")


@pytest.fixture
def history():
    index = pd.Index(np.arange(10, 110, 10), name="iteration")
    frame = pd.DataFrame(
        {"D/loss": np.linspace(2, 1, 10), "G/loss": np.linspace(1, 2, 10), "R1/loss": 0.1}, index=index
    )
    frame["distance"] = np.nan
    frame.loc[[50, 100], "distance"] = [4.0, 2.0]
    return frame


def test_draws_what_was_recorded(history, tmp_path):
    left, right = training(history, save=tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 5000
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["D", "G"]
    np.testing.assert_array_equal(left.lines[0].get_ydata(), history["D/loss"])
    np.testing.assert_array_equal(right.lines[0].get_xydata(), [[50, 4], [100, 2]])
    assert "2" in [t.get_text() for t in right.texts]
    left, _ = training(history, losses=["R1/loss"])
    assert len(left.lines) == 2
    with pytest.raises(KeyError, match="D/sign"):
        training(history, losses=["D/sign"])


def test_reads_a_running_training(history, tmp_path):
    rows = history.reset_index().melt(id_vars="iteration", var_name="name").dropna()[["iteration", "name", "value"]]
    (tmp_path / "training").mkdir()
    rows.to_csv(tmp_path / "training" / "metrics.csv", index=False)
    _, right = training(tmp_path)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [4, 2])
    with pytest.raises(FileNotFoundError, match="no metrics"):
        training(tmp_path / "none")
