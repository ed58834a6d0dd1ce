"""The benchmark: the truth wins, gene sets and controls are those of the tissue, and everything is written."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import sst
from sst._files import locked
from sst.cli import run
from sst.tl._benchmarking import METHODS, Limit, Measured, MeasuredSet, _methods, leaderboard, make_cells
from sst.tl._measuring import FeatureReader

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"n_cells": 120, "n_test": 20, "sets": ["marker", "unrelated"], "n_resamples": 20, "show": 2}


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
        edited = MeasuredSet(measured, name, show=3, n_resamples=50, level=0.95, seed=0)
        left, pictures = edited.no_edit()
        found, drawn = edited.method("oracle", [Oracle(cells.truth(name))] * 2, latent=(False, True))
        rows += [row | {"seconds": 1.0} for row in left + found]
        assert set(pictures) == {"real", "truth", "no edit"}
        assert set(drawn) == {"oracle", "oracle, latent"}
        assert drawn["oracle"].shape == (3, 2, 32, 32)
    table = leaderboard(pd.DataFrame(rows), cells.controls).set_index(["method", "latent"])
    oracle = table.loc[("oracle", True)]
    assert oracle["marker"] == pytest.approx(1)
    assert oracle["miss"] == pytest.approx(0)
    assert oracle["r"] == pytest.approx(1)
    assert oracle["unrelated"] == 0
    none = table.loc[("no edit", False)]
    assert none["marker"] == 0
    assert none["r"] == 0  # so that methods that move few sets do not have their mean over these alone
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
    text = (tmp_path / "leaderboard.md").read_text()
    assert "python -m sst --quiet benchmark --preset easy" in text
    assert "| morph, latent |" in text
    assert (tmp_path / "pictures" / "marker.png").stat().st_size > 1000
    before = _files(tmp_path / "models") | _files(tmp_path / "measured")
    assert run(arguments) == 0
    assert (_files(tmp_path / "models") | _files(tmp_path / "measured")) == before  # nothing is done again
    assert run([*arguments[:-5], "--sets", "nonsense", "--out", str(tmp_path)]) == 2


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_method_more_is_measured_beside_what_is_there(tmp_path):
    sst.tl.benchmark("easy", ["nearest"], out=tmp_path, **SMALL)
    before = _files(tmp_path / "measured")
    found = sst.tl.benchmark("easy", ["nearest", "ridge"], out=tmp_path, **SMALL)
    assert list(dict.fromkeys(found.rows["method"])) == ["no edit", "nearest", "ridge"]
    after = _files(tmp_path / "measured")
    assert {path: after[path] for path in before} == before
    assert sorted(path.name for path in (tmp_path / "measured").glob("*-ridge.npz")) == [
        "marker-ridge.npz",
        "unrelated-ridge.npz",
    ]

    damaged = tmp_path / "measured" / "marker-ridge.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = sst.tl.benchmark("easy", ["nearest", "ridge"], out=tmp_path, **SMALL)
    pd.testing.assert_frame_equal(again.rows, found.rows)
    pd.testing.assert_frame_equal(again.genes, found.genes)
    assert list(again.pictures["marker"]) == ["real", "truth", "no edit", "nearest", "nearest, latent"]


def test_models_of_other_cells_or_settings_are_refused_by_name(tmp_path, caplog):
    options = {"methods": ["nearest", "editor"], "seeds": 1, "iterations": 2, "out": tmp_path}
    sst.tl.benchmark("easy", **options, **SMALL)
    with pytest.raises(
        ValueError, match=r"editor-0 holds a model made otherwise \(editor\.fit\.iterations: 2 there, 3 wanted\)"
    ):
        sst.tl.benchmark("easy", **options | {"iterations": 3}, **SMALL)
    with pytest.raises(ValueError, match="nearest-0 holds a model made otherwise .cells"):
        sst.tl.benchmark("easy", **options, **SMALL | {"n_cells": 130})

    note = tmp_path / "models" / "editor-0.json"
    there = json.loads(note.read_text())
    note.write_text(json.dumps(there | {"code": "0+elsewhere"}))
    with caplog.at_level(logging.WARNING, logger="sst"):
        found = sst.tl.benchmark("easy", **options, **SMALL)
    assert "editor-0 was trained by other code (0+elsewhere" in caplog.text
    assert "0+elsewhere" in found.about["code"]
    note.unlink()
    with pytest.raises(ValueError, match="editor-0 holds a model without a note"):
        sst.tl.benchmark("easy", **options, **SMALL)


def test_a_training_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    """Cut off between the checkpoint and the model, a second call starts from the checkpoint and does the same."""
    options = {"methods": ["gan"], "seeds": 1, "iterations": 3}
    whole = sst.tl.benchmark("easy", **options, out=tmp_path / "whole", **SMALL)

    def cut_off(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sst.models.GAN, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            sst.tl.benchmark("easy", **options, out=tmp_path / "cut", **SMALL)
    note = tmp_path / "cut" / "models" / "gan-0.json"
    assert json.loads(note.read_text())["seconds"] is None
    assert sst.train.Checkpoints(tmp_path / "cut" / "models" / "gan-0" / "training").rest()["iteration"] == 3
    monkeypatch.setattr("sst.train._fit._Run._iteration", cut_off)  # not one more
    again = sst.tl.benchmark("easy", **options, out=tmp_path / "cut", **SMALL)
    pd.testing.assert_frame_equal(again.rows.drop(columns="seconds"), whole.rows.drop(columns="seconds"))


@pytest.mark.slow
def test_processes_share_the_work_and_a_killed_command_goes_on(tmp_path):
    """Two processes do each piece once; killed, both end, and the same command does the rest."""
    arguments = [
        "benchmark",
        "--preset",
        "easy",
        "--cells",
        "120",
        "--test-cells",
        "20",
        "--sets",
        "marker",
        "unrelated",
        "--seeds",
        "2",
    ]
    arguments += ["--methods", "nearest", "editor", "--iterations", "40", "--jobs", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "sst", "--quiet", *arguments]
    models, measured = tmp_path / "models", tmp_path / "measured"
    with subprocess.Popen(command, start_new_session=True) as process:
        while not (models / "editor-1.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    for name in ("editor-0-work", "editor-1-work"):
        while True:
            try:
                with locked(models / name):
                    break  # nobody is at it any more: the helper has ended, too
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    done = [path for path in models.glob("*.json") if json.loads(path.read_text())["seconds"] is not None]
    assert len(done) < 3
    assert not measured.exists()
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "| editor | False |" in finished.stdout
    assert sorted(path.name for path in models.glob("*.json")) == ["editor-0.json", "editor-1.json", "nearest-0.json"]
    rows = pd.read_csv(tmp_path / "leaderboard.csv")
    assert set(rows.loc[rows["method"] == "editor", "n_seeds"]) == {2}


def test_every_image_model_gets_the_same_time():
    limit = Limit(2, clock="cpu")
    for name in ("gan", "gan_paper", "inversion", "editor"):
        configs = METHODS[name].configs(limit)
        assert sum(config.fit.max_seconds for config in configs.values()) == pytest.approx(120)
        assert {config.fit.clock for config in configs.values()} == {"cpu"}
    paper = _methods._published_config(limit)["gan"]
    published = sst.train.GANConfig.preset("paper")
    assert (paper.loss, paper.data, paper.optimizer) == (published.loss, published.data, published.optimizer)
    assert paper.discriminator.conditioning == "label"
    assert paper.generator.gene_inputs == ("kernel",)
    assert paper.generator.input_transform == "counts"
    assert (paper.fit.ema_images, paper.fit.ema_rampup) == (5000, None)
