"""Every block of code in README, the pages and the notebooks runs, with small simulated slides in place of the user's."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shlex
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib as mpl
import pytest
import torch
from vendors import merscope_is_read, small_tissue, write_merscope, write_visium_hd

import sst
from sst.cli import build_parser

if TYPE_CHECKING:
    from collections.abc import Callable

mpl.use("Agg")
ROOT = Path(__file__).parents[1]
WRITTEN = [p for p in sorted((ROOT / "docs").glob("*.md")) if p.stem != "cli"]  # that one is made of the parser itself
PAGES = [ROOT / "README.md", *WRITTEN, *sorted((ROOT / "tutorials").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
NEEDS = {"workflow": ("squidpy", "spatialdata_plot", "igraph")}
COSMX = {"Slide1": 0, "Lung12": 0, "Normal": 0, "Tumor": 1, "NormalLiver": 0, "LiverCancer": 1}


def blocks(page: Path, language: str) -> list[str]:
    """A page's fences of a language, each behind as many empty lines as stand before it in the page; a notebook's cells."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)
    return ["\n" * text[: block.start(1)].count("\n") + block[1] for block in found]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated slides under the names that the pages give theirs."""
    folder = tmp_path_factory.mktemp("slides")
    tissue = sst.datasets.simulate_tissue(n_cells=80, n_genes=24, fovs=4, seed=2)
    cosmx = tissue.write_cosmx(folder / "flat")
    for name, which in COSMX.items():
        (folder / name).symlink_to(cosmx[which])
    first = tissue.write_cosmx(folder / "atomx", layout="atomx")[0]
    for part in ("flatFiles", "RawFiles"):
        (folder / part).mkdir()
        (folder / part / "Slide1").symlink_to(first)
    for name, path in zip(
        ("NormalLiverFiles", "LiverCancerFiles"), tissue.write_cosmx(folder, layout="release"), strict=True
    ):
        path.rename(folder / name)
    (folder / "NormalLiverFiles.zip").symlink_to(folder / "NormalLiverFiles")
    xenium = tissue.write_xenium(folder / "xenium")
    for name in ("outs", "output-XETG00000__0000000__S1__20240101__000000"):
        (folder / name).symlink_to(xenium[0])
    small = small_tissue(seed=2)
    for group in ("normal", "tumor"):
        (folder / f"merscope_{group}").symlink_to(write_merscope(small, group, folder / "merscope" / group))
        write_visium_hd(small, group, folder / f"visium_hd_{group}")
    (folder / "hallmark.gmt").write_text("\t".join(["HALLMARK_HYPOXIA", "", *tissue.genes.index[:4]]) + "\n")
    return folder


def shrunk(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Trainings of two steps, crops of at most 32 px, whatever a page says."""
    patch.setattr(sst.settings, "model_dir", folder / "sst_models")
    for name in ("gan", "editor", "clip", "inversion"):
        train = getattr(sst.tl, f"train_{name}")
        patch.setattr(sst.tl, f"train_{name}", smaller(train, preset="demo", iterations=2, device="cpu"))
    crop = sst.pp.crop_cells

    def small_crops(sdata: Any, *, output_size: int = 16, **options: Any) -> Any:
        return crop(sdata, **(options | {"size": 64, "output_size": min(output_size, 32)}))

    patch.setattr(sst.pp, "crop_cells", small_crops)
    simulate = sst.datasets.simulate_tissue

    def small(*sizes: int, config: sst.datasets.TissueConfig | None = None, **options: Any) -> Any:
        if config is not None:
            return simulate(config=dataclasses.replace(config, n_cells=80))
        return simulate(*sizes, **(options | {"n_cells": 80, "fovs": 4}))

    patch.setattr(sst.datasets, "simulate_tissue", small)
    patch.setattr(sst.tl, "transition", smaller(sst.tl.transition, steps=4))


@pytest.fixture(scope="module")
def taken_for_granted(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a page has from the pages before it: slides, their cells, and an edit by a model that has seen little."""
    names: dict[str, Any] = {"sd_n": sst.pp.read_cosmx(slides / "Normal"), "sd_t": sst.pp.read_cosmx(slides / "Tumor")}
    names["slide"] = names["sdata"] = names["sd_t"]
    with pytest.MonkeyPatch.context() as patch:
        shrunk(patch, tmp_path_factory.mktemp("models"))
        cut = {"normal": sst.pp.crop_cells(names["sd_n"]), "tumor": sst.pp.crop_cells(names["sd_t"])}
        adata = ad.concat(cut, label="condition", index_unique="-", uns_merge="same")
        adata.layers["scgen"] = adata.X.copy()
        sst.pp.rescale_intensity(adata, groupby="condition")
        sst.pp.train_test_split(adata, by="fov", test_size=0.5)
        names["gan"] = sst.tl.train_gan(adata, groupby="condition")
        names["ed"] = sst.tl.train_editor(adata, groupby="condition")
        sst.tl.edit(adata, genes=["HLA-A", "B2M"])
    names["adata"], names["truth"] = adata, adata.obsm["crops"]
    names["other"] = adata
    names["images"] = torch.zeros(2, 2, 128, 128)
    names["labels"], names["counts"], names["permutation"] = (
        torch.tensor([0, 1]),
        torch.ones(2, 1000),
        torch.tensor([1, 0]),
    )
    return names


def smaller(function: Callable[..., Any], **less: Any) -> Callable[..., Any]:
    """A function with some of its options replaced, whatever a page says."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return function(*args, **(options | less))

    return call


@pytest.fixture
def small_world(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's folder; nothing is downloaded."""
    for path in slides.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    shrunk(monkeypatch, tmp_path)
    release = SimpleNamespace(normal="NormalLiverFiles", tumor="LiverCancerFiles", tiledb="LiverDataReleaseTileDB")
    monkeypatch.setattr(sst.datasets, "cosmx_liver", lambda: release)
    monkeypatch.setattr(sst.datasets, "xenium_lung", lambda: SimpleNamespace(normal="outs", tumor="outs"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page",
    [p for p in [*PAGES, *NOTEBOOKS] if blocks(p, "python")],
    ids=lambda p: str(p.relative_to(ROOT).with_suffix("")),
)
def test_code_runs(page: Path, taken_for_granted: dict[str, Any], small_world: None) -> None:
    for package in NEEDS.get(page.stem, ()):
        pytest.importorskip(package)
    if page.stem == "platforms" and not merscope_is_read():
        pytest.skip("spatialdata-io does not read MERSCOPE with this anndata")
    names = taken_for_granted | {"sst": sst, "adata": taken_for_granted["adata"].copy()}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)
    mpl.pyplot.close("all")


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^()\s]+)\)", re.sub(r"^```.*?^```|`[^`\n]*`|\$\$.*?\$\$", "", text, flags=re.M | re.S))
    local = {link.split("#")[0] for link in links if not re.match(r"https?:|mailto:|#", link)}
    assert [link for link in sorted(local) if not (page.parent / link).exists()] == []


COMMANDS = [
    pytest.param(line.split("#")[0].strip(), id=f"{page.stem}-{k}")
    for page in PAGES
    for k, line in enumerate(
        re.findall(  # a line of a block; it may go on behind a backslash
            r"(?:^ *|^.*&& *\S*)python3? -m (sst .*)$", page.read_text().replace("\\\n", " "), flags=re.M
        )
    )
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    parser, _ = build_parser()
    with pytest.raises(SystemExit, match="^0$") if "--version" in command else nullcontext():
        parser.parse_args(shlex.split(command)[1:])
