"""The store: zarr to others, a memory map to us; readers of images."""

from __future__ import annotations

import pickle

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from sst.io import crop_reader, open_store, write_store
from sst.io.store._layout import inner_rows
from sst.io.store._reader import ConcatReader, DaskReader, MappedReader


def make(n=70, dtype=np.uint16, seed=0, h=8):
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(
        sp.random(n, 9, 0.3, format="csr", random_state=seed, dtype=np.float32),
        obs=pd.DataFrame({"fov": pd.Categorical(rng.choice(["a", "b"], n))}, index=[f"c{i}" for i in range(n)]),
    )
    adata.layers["segmented"] = sp.random(n, 9, 0.2, format="csr", random_state=seed + 1)
    adata.obsm["crops"] = (rng.random((n, 2, h, h)) * 200).astype(dtype)
    adata.obsm["spatial"] = rng.random((n, 2))
    adata.uns["crops"] = {"channels": ["M", "D"], "size": h}
    return adata


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("n", [1, 70])
def test_round_trip(tmp_path, dtype, n, monkeypatch):
    monkeypatch.setattr("sst.io.store._layout._CHUNK_BYTES", 3000)  # several chunks, the last one not full
    adata = make(n, dtype)
    write_store(adata, tmp_path / "s.zarr")
    lazy, plain = open_store(tmp_path / "s.zarr"), ad.read_zarr(tmp_path / "s.zarr")
    for other in (lazy, plain):
        np.testing.assert_array_equal(np.asarray(other.obsm["crops"]), adata.obsm["crops"])
        np.testing.assert_array_equal(other.X.toarray(), adata.X.toarray())
        np.testing.assert_array_equal(other.layers["segmented"].toarray(), adata.layers["segmented"].toarray())
        np.testing.assert_array_equal(other.obsm["spatial"], adata.obsm["spatial"])
        pd.testing.assert_frame_equal(other.obs, adata.obs)
        assert list(other.uns["crops"]["channels"]) == ["M", "D"]
    assert isinstance(lazy.obsm["crops"], da.Array)
    assert isinstance(lazy.X, sp.csr_matrix)
    array = zarr.open_array(tmp_path / "s.zarr" / "obsm" / "crops", mode="r")
    rows = slice(n // 2, n // 2 + 3)
    np.testing.assert_array_equal(array[rows], adata.obsm["crops"][rows])  # pieces of the shard
    if n > 1:
        assert inner_rows(adata.obsm["crops"].shape, np.dtype(dtype)) < n


def test_counts_are_mapped_and_changes_stay_in_memory(tmp_path):
    adata = make()
    write_store(adata, tmp_path / "s.zarr")
    opened = open_store(tmp_path / "s.zarr")
    assert isinstance(opened.X.data, np.memmap)
    opened.X.data[:] = 7
    np.testing.assert_array_equal(open_store(tmp_path / "s.zarr").X.toarray(), adata.X.toarray())
    opened[:5].copy().write_h5ad(tmp_path / "a.h5ad")


def test_empty_matrix(tmp_path):
    adata = make()
    adata.X = sp.csr_matrix((70, 9), dtype=np.int32)
    write_store(adata, tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").X.nnz == 0
    assert ad.read_zarr(tmp_path / "s.zarr").X.nnz == 0


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="no store"):
        open_store(tmp_path / "none.zarr")
    make().write_zarr(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="not a crop store"):
        open_store(tmp_path / "other.zarr")
    with pytest.raises(FileExistsError, match="will not be replaced"):
        write_store(make(), tmp_path / "other.zarr", overwrite=True)
    write_store(make(), tmp_path / "s.zarr")
    with pytest.raises(FileExistsError, match="overwrite"):
        write_store(make(), tmp_path / "s.zarr")
    before = open_store(tmp_path / "s.zarr")
    write_store(make(seed=5), tmp_path / "s.zarr", overwrite=True)
    np.testing.assert_array_equal(open_store(tmp_path / "s.zarr").obsm["crops"], make(seed=5).obsm["crops"])
    np.testing.assert_array_equal(crop_reader(before).take([3]), make().obsm["crops"][[3]])  # what is open stays


def test_a_half_written_store_leaves_nothing(tmp_path, monkeypatch):
    import sst.io.store._store as store

    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_rest", stop)
    with pytest.raises(KeyboardInterrupt):
        write_store(make(), tmp_path / "s.zarr")
    with pytest.raises(FileNotFoundError, match="no store"):
        open_store(tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


def readers(tmp_path):
    adata = make()
    crops = adata.obsm["crops"]
    write_store(adata, tmp_path / "s.zarr")
    stored = open_store(tmp_path / "s.zarr")
    yield "memory", crop_reader(adata), crops
    yield "array", crop_reader(crops), crops
    yield "store", crop_reader(stored), crops
    joined = ad.concat({"a": stored, "b": stored}, index_unique="-")
    yield "joined", crop_reader(joined), np.concatenate([crops, crops])
    yield "dask", crop_reader(da.from_array(crops, chunks=(13, 1, 8, 8))), crops
    part = stored[np.r_[5:20, 3, 60:70]].copy()
    yield "part", crop_reader(part), crops[np.r_[5:20, 3, 60:70]]


def test_readers_agree_with_the_array(tmp_path):
    kinds = {}
    for name, reader, truth in readers(tmp_path):
        kinds[name] = type(reader)
        assert reader.shape == truth.shape
        assert reader.dtype == truth.dtype
        n = len(truth)
        for rows in ([0], [n - 1, 0, 0, 7], np.random.default_rng(0).permutation(n), [-1]):
            np.testing.assert_array_equal(reader.take(rows), truth[rows])
        for a, b in ((0, n), (3, 9), (n - 2, n), (n - 2, n + 5), (4, 4)):
            np.testing.assert_array_equal(reader.block(a, b), truth[a:b])
        with pytest.raises(IndexError):
            reader.take([n])
    assert kinds["store"] is MappedReader
    assert kinds["joined"] is ConcatReader
    assert kinds["dask"] is DaskReader


def test_readers_travel_between_processes(tmp_path):
    write_store(make(), tmp_path / "s.zarr")
    reader = pickle.loads(pickle.dumps(crop_reader(open_store(tmp_path / "s.zarr"))))
    np.testing.assert_array_equal(reader.take([2, 1]), make().obsm["crops"][[2, 1]])


def test_a_rechunked_or_changed_array_is_not_taken_for_the_store(tmp_path):
    write_store(make(), tmp_path / "s.zarr")
    crops = open_store(tmp_path / "s.zarr").obsm["crops"]
    for other in (crops + 1, crops[::-1], da.concatenate([crops[10:], crops[:10]]), crops[:, ::-1]):
        np.testing.assert_array_equal(crop_reader(other).take([0, 9]), other.compute()[[0, 9]])


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match="n x c x h x w"):
        crop_reader(np.zeros((3, 4)))
    with pytest.raises(KeyError, match="edited"):
        crop_reader(make(), key="edited")


@pytest.mark.parametrize("how", ["cut", "gone", "empty"])
def test_a_damaged_store_is_named(tmp_path, how):
    """Whatever file of it is cut off or lost, it is said which; zarr would read zeros."""
    write_store(make(), tmp_path / "s.zarr")
    files = sorted(f for f in (tmp_path / "s.zarr").rglob("*") if f.is_file() and f.name != "files.json")
    chosen = {f.parts[-1] if f.suffix else str(f.parent): f for f in files}
    for file in [*list(chosen.values())[:12], *(tmp_path / "s.zarr" / "obsm" / "crops" / "c").rglob("0")]:
        if not file.is_file():
            continue
        whole = file.read_bytes()
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(whole[: len(whole) // 2] if how == "cut" else b"")
        with pytest.raises(ValueError, match=r"s\.zarr.*(damaged|no zarr\.json)"):
            open_store(tmp_path / "s.zarr")
        file.write_bytes(whole)
    np.testing.assert_array_equal(open_store(tmp_path / "s.zarr").obsm["crops"], make().obsm["crops"])


def test_what_is_no_json_any_more_is_named(tmp_path):
    write_store(make(), tmp_path / "s.zarr")
    for name in ("zarr.json", "obs/zarr.json", "X/indptr/zarr.json", "obsm/crops/zarr.json"):
        file = tmp_path / "s.zarr" / name
        whole = file.read_bytes()
        file.write_bytes(b"\x00" * len(whole))
        with pytest.raises(ValueError, match=r"s\.zarr.*damaged"):
            open_store(tmp_path / "s.zarr")
        file.write_bytes(whole)
