"""A crop store, killed at any moment: nothing is lost, the same call ends as if nothing had happened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from killing import count_steps, killed_at

import sst
from sst.datasets import simulate_tissue

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="forks"),
    pytest.mark.filterwarnings("ignore"),
]
SIZE = 24


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_tissue(n_cells=40, n_genes=16, fovs=2, seed=0).write_cosmx(tmp_path_factory.mktemp("slide"))[0]


@pytest.fixture(scope="module")
def sdata(slide: Path):
    return sst.pp.read_cosmx(slide)


def cut(sdata, path, **more):
    how = {"size": SIZE, "output_size": SIZE, "n_workers": 1, "store": path} | more
    return sst.pp.crop_cells(sdata, **how)


def equal(adata, other) -> None:
    assert list(adata.obs_names) == list(other.obs_names)
    np.testing.assert_array_equal(np.asarray(adata.obsm["crops"]), np.asarray(other.obsm["crops"]))
    for a, b in ((adata.X, other.X), (adata.layers["segmented"], other.layers["segmented"])):
        assert a.sum() > 0
        assert (a != b).nnz == 0


def moments(count: int, spread: int) -> list[int]:
    """The last moments all, when the store gets its name, and some of those before."""
    last = max(0, count - 12 * (spread > 10) - 6)
    return sorted({*np.linspace(0, last, min(spread, 40), dtype=int).tolist(), *range(last, count)})


@pytest.mark.parametrize(
    ("replace", "spread"), [(False, 2), *(pytest.param(r, 40, marks=pytest.mark.slow) for r in (False, True))]
)
def test_killed_anywhere_and_run_again(sdata, tmp_path: Path, replace: bool, spread: int) -> None:
    undisturbed = cut(sdata, None)
    other = cut(sdata, None, size=SIZE + 2, output_size=SIZE)
    folder = tmp_path / "0"
    path = folder / "slide.zarr"

    def prepare(name: str) -> None:
        nonlocal folder, path
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "slide.zarr"
        if replace:
            cut(sdata, path, size=SIZE + 2)

    prepare("whole")
    count = count_steps(lambda: cut(sdata, path, overwrite=replace), folder)
    assert count > 40
    for at in moments(count, spread):
        prepare(f"at{at}")
        killed_at(at, lambda: cut(sdata, path, overwrite=replace), folder)
        if path.exists():  # what bears the name is whole
            there = sst.io.open_store(path)
            equal(there, other if there.uns["crops"]["size"] != SIZE else undisturbed)
        else:
            assert not replace
        try:
            again = cut(sdata, path, overwrite=replace)
        except FileExistsError:  # it was finished to the last file
            assert not replace
            again = sst.io.open_store(path)
        equal(again, undisturbed)
        equal(sst.io.open_store(path), undisturbed)
        assert [p.name for p in folder.iterdir()] == ["slide.zarr"], at


@pytest.mark.slow
def test_write_store_killed_anywhere(sdata, tmp_path: Path) -> None:
    adata = cut(sdata, None)
    other = adata[:5].copy()
    count = count_steps(lambda: sst.io.write_store(adata, tmp_path / "a.zarr"), tmp_path)
    for at in moments(count, 3):
        folder = tmp_path / f"at{at}"
        path = folder / "s.zarr"
        sst.io.write_store(other, path)
        killed_at(at, lambda p=path: sst.io.write_store(adata, p, overwrite=True), folder)
        there = sst.io.open_store(path)
        equal(there, other if there.n_obs == 5 else adata)
        sst.io.write_store(adata, path, overwrite=True)
        equal(sst.io.open_store(path), adata)
        assert [p.name for p in folder.iterdir()] == ["s.zarr"], at


def test_a_mark_of_no_bytes_is_no_mark(sdata, tmp_path: Path) -> None:
    """What a full disk left: the transcripts are sorted again, the store is begun again."""
    path = tmp_path / "slide.zarr"
    count = count_steps(lambda: cut(sdata, tmp_path / "other.zarr"), tmp_path)
    killed_at(count // 2, lambda: cut(sdata, path), tmp_path)
    work = tmp_path / "slide.zarr.partial"
    for name in ("transcripts/done.json", "progress.json"):
        assert (work / name).exists()
        (work / name).write_bytes(b"")
        with pytest.raises(RuntimeError, match="unfinished"):
            sst.io.open_store(path)
    equal(cut(sdata, path), cut(sdata, None))


def test_two_processes_do_not_write_one_store(sdata, tmp_path: Path) -> None:
    from sst._files import locked

    path = tmp_path / "slide.zarr"

    def second() -> None:
        for call in (lambda: cut(sdata, path), lambda: sst.io.write_store(cut(sdata, None), path)):
            with pytest.raises(BlockingIOError, match="slide.zarr is being written by process"):
                call()

    with locked(path):
        assert not killed_at(-1, second, tmp_path)
    equal(cut(sdata, path), cut(sdata, None))
