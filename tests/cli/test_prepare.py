from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from vendors import merscope_is_read, small_tissue, write_merscope, write_visium_hd

import sst
from sst.cli import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    tissue = sst.datasets.simulate_tissue(n_cells=60, n_genes=20, fovs=3, seed=1)
    return list(tissue.write_cosmx(tmp_path_factory.mktemp("slides")))


CUT = ["--size", "64", "--output-size", "16", "--channels", "CD298/B2M", "DAPI", "--groups", "normal", "tumor"]


@pytest.mark.slow
def test_a_study_from_folders_to_a_report(slides: list[Path], tmp_path: Path) -> None:
    out, model, edited = tmp_path / "object.zarr", tmp_path / "gan", tmp_path / "edited.zarr"
    assert run(["--quiet", "prepare", *map(str, slides), "--out", str(out), *CUT]) == 0
    adata = sst.io.open_store(out)
    assert hasattr(adata.obsm["crops"], "dask")
    assert adata.obsm["crops"].dtype == np.uint8
    assert list(adata.obs["condition"].cat.categories) == ["normal", "tumor"]
    assert {"train", "test"} <= set(adata.obs["split"])
    assert not (tmp_path / "object.zarr.slides").exists()

    by_hand = {}
    for name, folder in zip(("normal", "tumor"), slides, strict=True):
        by_hand[name] = sst.pp.crop_cells(sst.pp.read_cosmx(folder), size=64, output_size=16, channels=CUT[5:7])
    other = ad.concat(by_hand, label="condition", index_unique="-", uns_merge="same")
    sst.pp.rescale_intensity(other, groupby="condition")
    assert (np.asarray(adata.obsm["crops"]) == np.asarray(other.obsm["crops"])).all()
    assert (adata.X != other.X).nnz == 0

    train = ["--quiet", "train", "gan", str(out), "--out", str(model), "--preset", "demo", "--iterations", "1"]
    assert (
        run([*train, "--set", "fit.batch_size=4", "--set", "loss.taper=0.5", "--set", "generator.channel_max=16"]) == 0
    )
    assert sst.models.load(model).config.loss.taper == 0.5
    edit = ["--quiet", "edit", str(out), "--model", str(model), "--genes", "B2M", "--out", str(edited)]
    assert run([*edit, "--store", str(tmp_path / "pictures.zarr"), "--devices", "cpu", "cpu"]) == 0
    made = sst.io.open_store(edited)
    for slot in ("generated", "edited"):
        assert made.obsm[slot].shape == adata.obsm["crops"].shape
        assert f"{slot}_nucleus_area" in made.obs
        assert np.asarray(made.obsm[slot]).any()
    assert (np.asarray(made.obsm["edited"]) == sst.models.load(model).generate(made, layer="edited")).all()
    report = ["--model", str(model), "--genes", "B2M", "--out", str(tmp_path / "report"), "--repeats", "1"]
    assert run(["--quiet", "evaluate", str(out), *report]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Share of the gap closed" in page
    assert "data:image/" in page or "<svg" in page
    drawn = {p.name.rsplit("-", 1)[0] for p in (tmp_path / "report" / "figures").glob("*.pdf") if p.stat().st_size}
    assert {"distances", "what-changed", "cells-generated"} <= drawn
    assert {"distances.csv", "morphology.csv"} <= {p.name for p in (tmp_path / "report").iterdir()}


def test_a_file_says_what_flags_say(slides: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(
        f"slides: [{slides[0]}, {slides[1]}]\nout: {tmp_path / 'a.zarr'}\nsize: 64\noutput-size: 32\n"
        "channels: [CD298/B2M, DAPI]\ngroups: [normal, tumor]\nseed: 3\n"
    )
    assert run(["--quiet", "prepare", "--config", str(config), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "at most, 2 x 32 x 32" in said
    assert "GB while it runs" in said
    assert not (tmp_path / "a.zarr").exists()
    assert run(["--quiet", "prepare", "--config", str(config), "--output-size", "16"]) == 0  # what is typed wins
    assert sst.io.open_store(tmp_path / "a.zarr").obsm["crops"].shape[1:] == (2, 16, 16)

    for text, named in (("sise: 3\n", "'sise'"), ("- a\n", "option: value"), ("a: [\n", "no YAML")):
        config.write_text(text)
        with pytest.raises(SystemExit):
            run(["prepare", "--config", str(config)])
        assert named in capsys.readouterr().err


def test_mistakes_are_named(slides: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["--quiet", "prepare", *map(str, slides), "--out"]
    assert run([*start, str(tmp_path / "b.zarr"), *CUT[:-1]]) == 2
    assert "2 slides need as many groups" in capsys.readouterr().err
    assert run([*start, str(tmp_path / "b.h5ad"), *CUT]) == 2
    assert ".zarr" in capsys.readouterr().err
    assert run(["--quiet", "prepare", str(tmp_path / "none"), "--out", str(tmp_path / "b.zarr"), "--size", "64"]) == 2
    assert "no such slide" in capsys.readouterr().err


def test_two_slides_of_a_group_keep_their_own_limits(slides: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "two.zarr"
    cut = [*CUT[:-2], "tumor", "tumor"]
    assert run(["--quiet", "prepare", *map(str, slides), "--out", str(out), *cut, "--keep-slides"]) == 0
    adata = sst.io.open_store(out)
    assert set(adata.obs["slide"]) == {"tumor-1", "tumor-2"}
    assert set(adata.uns["crops"]["limits"]["low"]) == {"tumor-1", "tumor-2"}
    assert (tmp_path / "two.zarr.slides" / "tumor-1.zarr").exists()


def test_donors_and_slides_of_equal_brightness(
    slides: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "donors.zarr"
    start = ["--quiet", "prepare", *map(str, slides), "--out", str(out), *CUT[:-2], "tumor", "tumor"]
    assert run([*start, "--split-by", "donor"]) == 2
    assert "--donors" in capsys.readouterr().err
    assert run([*start, "--donors", "ann"]) == 2
    assert "2 slides need as many donors" in capsys.readouterr().err
    assert run([*start, "--donors", "ann", "bob", "--split-by", "donor", "--batch-key", "slide"]) == 0
    adata = sst.io.open_store(out)
    assert adata.obs.groupby("donor", observed=True)["split"].nunique().tolist() == [1, 1]
    limits = adata.uns["crops"]["limits"]
    assert (limits["groupby"], limits["kept"]) == ("slide", "condition")
    gains = [np.asarray(limits["gain"][s], float) for s in ("tumor-1", "tumor-2")]
    np.testing.assert_allclose(gains[0] * gains[1], 1)


@pytest.mark.filterwarnings("ignore")
def test_slides_of_other_vendors_and_both_halves(tmp_path: Path) -> None:
    tissue = small_tissue()
    cut = ["--size", "64", "--output-size", "16", "--groups", "normal", "tumor", "--split-by", "tile"]
    bins = [str(write_visium_hd(tissue, g, tmp_path / g)) for g in ("normal", "tumor")]
    out = tmp_path / "bins.zarr"
    options = ["--table", "square_008um", "--expression", "cell", *cut]
    assert run(["--quiet", "prepare", *bins, "--out", str(out), "--dry-run", *options]) == 0
    assert run(["--quiet", "prepare", *bins, "--out", str(out), *options]) == 0
    assert sst.io.open_store(out).uns["crops"]["brightfield"]
    assert run(["--quiet", "prepare", *bins, "--out", str(tmp_path / "no.zarr"), *cut]) == 2  # no table of that name

    if not merscope_is_read():
        pytest.skip("spatialdata-io does not read MERSCOPE with this anndata")
    cells = [str(write_merscope(tissue, g, tmp_path / "merscope" / g)) for g in ("normal", "tumor")]
    out, model, edited = tmp_path / "cells.zarr", tmp_path / "editor", tmp_path / "edited.zarr"
    assert run(["--quiet", "prepare", *cells, "--out", str(out), *cut]) == 0
    train = ["--out", str(model), "--preset", "demo", "--iterations", "1", "--inputs", "own", "niche"]
    small = ["--set", "fit.batch_size=4", "--set", "editor.width=4"]
    assert run(["--quiet", "train", "clip", str(out), *train]) == 2
    assert run(["--quiet", "train", "editor", str(out), *train, *small]) == 0
    edit = ["--model", str(model), "--genes", "B2M", "--part", "niche", "--out", str(edited)]
    assert run(["--quiet", "edit", str(out), *edit]) == 0
    adata = sst.io.open_store(edited) if (edited / "crops").exists() else ad.read_zarr(edited)
    assert adata.uns["edited"]["params"]["part"] == "niche"
    assert {"edited_own", "edited_niche"} <= set(adata.layers)
