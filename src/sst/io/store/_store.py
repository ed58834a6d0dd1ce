"""The crop store: an AnnData in zarr whose images and counts can be memory-mapped."""

from __future__ import annotations

import filecmp
import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from sst._arguments import checked
from sst._files import locked, new_folder, read_mark, remove_leftovers, scratch_folder, write_json
from sst._settings import logger
from sst._strings import plain_strings

from ._layout import RawWriter, mapped
from ._reader import lazy_crops

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from anndata import AnnData

PARTIAL = ".partial"
PROGRESS = "progress.json"
_VERSION = 1
_FILES = "files.json"  # every file of a store and its bytes
_ROWS = 512


def partial_folder(path: str | os.PathLike[str]) -> Path:
    """Where a store is written until it is whole: the same name with ``.partial`` behind it."""
    path = Path(path)
    return path.with_name(path.name + PARTIAL)


@checked
def open_store(path: str | os.PathLike[str]) -> AnnData:
    """Open a crop store without reading its images.

    Parameters
    ----------
    path
        A store written by :func:`sst.pp.crop_cells` or :func:`sst.io.write_store`.

    Returns
    -------
    AnnData: ``X`` and ``layers`` are CSR matrices over memory maps (copy on write: changes stay in memory), arrays of
    images in ``obsm`` are dask arrays, the rest is read.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    RuntimeError
        The store was never finished; the message says how far it got.
    ValueError
        The folder is not a store of this kind.
    """
    import zarr
    from anndata import AnnData
    from anndata.io import read_elem

    path = Path(path)
    if not path.exists():
        unfinished = partial_folder(path)
        if unfinished.exists():
            msg = f"{path} is unfinished: {_progress(unfinished)}. Make the same call of crop_cells again to resume it."
            raise RuntimeError(msg)
        msg = f"there is no store at {path}."
        raise FileNotFoundError(msg)
    if path.name.endswith(PARTIAL) or (path / PROGRESS).exists():
        msg = f"{path} is an unfinished store: {_progress(path)}. Make the same call of crop_cells again to resume it."
        raise RuntimeError(msg)
    if not (path / "zarr.json").exists():
        msg = f"{path} is not a crop store: it has no zarr.json (zarr format 3)."
        raise ValueError(msg)
    try:
        root: Any = zarr.open_group(path, mode="r")
    except Exception as error:
        raise _damaged(path / "zarr.json", error) from error
    if "sst_store" not in root.attrs:
        msg = f"{path} is not a crop store (use anndata.read_zarr for other AnnData)."
        raise ValueError(msg)
    _check_files(path)
    parts: dict[str, Any] = {}
    where = path
    try:
        for name in ("obs", "var", "uns", "raw"):
            where = path / name
            if name in root:
                parts[name] = read_elem(root[name])
        for name in ("obsm", "varm", "obsp", "varp", "layers"):
            parts[name] = {}
            for key in root.get(name, ()):
                where = path / name / key
                parts[name][key] = _read(where, root[f"{name}/{key}"])
        where = path / "X"
        if "X" in root:
            parts["X"] = _read(where, root["X"])
        where = path
        return AnnData(**parts)
    except Exception as error:
        raise _damaged(where, error) from error


def _damaged(where: Path, error: Exception) -> ValueError:
    return ValueError(f"{where} is damaged ({type(error).__name__}: {str(error)[:300]}). Write the store again.")


def _check_files(path: Path) -> None:
    """All files of a store are there and as long as they were: zarr takes a chunk that is missing for zeros."""
    for name, size in (read_mark(path / _FILES) or {}).items():
        file = path / name
        there = file.stat().st_size if file.exists() else None
        if there != size:
            what = "is missing" if there is None else f"has {there} bytes, it had {size}"
            msg = f"{file} {what}: the store is damaged (or was changed by other means). Write it again."
            raise ValueError(msg)


@checked
def write_store(adata: AnnData, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write an AnnData as a crop store: one pass over its images, block by block.

    Use it to keep a rescaled object, or several slides together, in the layout that training reads fastest.

    Parameters
    ----------
    adata
        Object whose ``obsm`` has images (n x c x h x w), in memory or lazy.
    path
        Folder to make.
    overwrite
        Replace a store that is there.
    """
    target = Path(path)
    with locked(target):
        remove_leftovers(target.parent, target.name)
        check_target(target, overwrite=overwrite)
        work = partial_folder(target)
        if work.exists():
            msg = f"{work} is in the way: an unfinished store. Finish it with crop_cells or remove it."
            raise FileExistsError(msg)
        with new_folder(target, overwrite=overwrite) as draft:
            there = set()
            for key, value in adata.obsm.items():
                if getattr(value, "ndim", 2) == 4:
                    writer = RawWriter(draft / "obsm" / key, np.dtype(value.dtype), 4)
                    for start in range(0, len(value), _ROWS):
                        writer.append(np.asarray(value[start : start + _ROWS]))
                    writer.close(tuple(value.shape[1:]), shard=True)
                    there.add(f"obsm/{key}")
            layers = {f"layers/{k}": v for k, v in adata.layers.items() if k is not None}
            for where, matrix in {"X": adata.X, **layers}.items():
                if sp.issparse(matrix):
                    write_csr(draft / where, iter([matrix.tocsr()]), matrix.shape)
                    there.add(where)
            write_rest(draft, adata, there)
    logger.info("wrote the store %s", target)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse to write where something is that may not be replaced."""
    if not path.exists():
        return
    if not overwrite:
        msg = f"{path} exists: open it with sst.io.open_store, or pass overwrite=True."
        raise FileExistsError(msg)
    root = path / "zarr.json"
    if not root.exists() or "sst_store" not in root.read_text():
        msg = f"{path} exists and is not a crop store; it will not be replaced."
        raise FileExistsError(msg)


def write_csr(folder: Path, blocks: Iterator[sp.csr_matrix], shape: tuple[int, int]) -> None:
    """Write a CSR matrix from blocks of its rows, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    first = next(blocks)
    data, indices = RawWriter(folder / "data", first.dtype), RawWriter(folder / "indices", np.dtype("i4"))
    ends = [np.zeros(1, np.int64)]
    total = 0
    while first is not None:
        data.append(first.data)
        indices.append(first.indices)
        ends.append(first.indptr[1:].astype(np.int64) + total)
        total += first.nnz
        first = next(blocks, None)
    data.close()
    indices.close()
    indptr = np.concatenate(ends)
    writer = RawWriter(folder / "indptr", np.dtype("i4" if total < np.iinfo(np.int32).max else "i8"))
    writer.append(indptr)
    writer.close()
    attributes = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [int(s) for s in shape]}
    write_group(folder, attributes)


def write_rest(folder: Path, adata: AnnData, there: set[str], *, run: str = "") -> None:
    """Write all of ``adata`` that is not there yet.

    Parameters
    ----------
    folder
        The store's draft.
    adata
        What to write.
    there
        Elements (``"X"``, ``"obsm/crops"``) that are written already.
    run
        A word that tells this store from others at the same place; kept in it (:func:`run_of`).
    """
    import anndata
    import zarr
    from anndata.io import write_elem

    about = {"version": _VERSION, "run": run}
    write_group(folder, {"encoding-type": "anndata", "encoding-version": "0.1.0", "sst_store": about})
    root: Any = zarr.open_group(folder, mode="r+")
    with anndata.settings.override(auto_shard_zarr_v3=False):
        write_elem(root, "obs", plain_strings(adata.obs))
        write_elem(root, "var", plain_strings(adata.var))
        write_elem(root, "uns", dict(adata.uns))
        for name in ("obsm", "varm", "obsp", "varp", "layers"):
            if not (folder / name / "zarr.json").exists():
                write_group(folder / name, {"encoding-type": "dict", "encoding-version": "0.1.0"})
            for key, value in getattr(adata, name).items():
                if key is not None and f"{name}/{key}" not in there:  # anndata 0.13 lists X as layers[None]
                    write_elem(root[name], key, plain_strings(value) if hasattr(value, "iloc") else value)
        if adata.X is not None and "X" not in there:
            write_elem(root, "X", adata.X)
        if adata.raw is not None:
            write_elem(root, "raw", adata.raw)
    files = [f for f in folder.rglob("*") if f.is_file() and f.name != _FILES]
    write_json(folder / _FILES, {f.relative_to(folder).as_posix(): f.stat().st_size for f in files})


def run_of(path: Path) -> str:
    """The word of the run that wrote the store at ``path``; ``""`` where there is none or it does not say."""
    said = read_mark(path / "zarr.json") or {}
    return str(said.get("attributes", {}).get("sst_store", {}).get("run", ""))


def write_group(folder: Path, attributes: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (folder / "zarr.json").write_text(json.dumps(meta, indent=1))


def _mapped_csr(folder: Path, shape: tuple[int, int]) -> sp.csr_matrix | None:
    """A CSR matrix over memory maps; ``None`` if it was not written here."""
    data, indices, indptr = (mapped(folder / name) for name in ("data", "indices", "indptr"))
    if data is None or indices is None or indptr is None:
        return None
    matrix = sp.csr_matrix(shape, dtype=data.dtype)
    matrix.data, matrix.indices, matrix.indptr = data, indices, np.array(indptr)
    return matrix


def write_layer(folder: Path, blocks: Iterator[Any], shape: tuple[int, int]) -> Any:
    """Write a matrix, dense or CSR, from blocks of its rows; it comes back as a memory map (changes stay in memory).

    Raises
    ------
    FileExistsError
        Another matrix is there; the same one stays.
    """
    first = next(blocks)
    blocks = chain([first], blocks)
    with scratch_folder(folder.parent, prefix=f".{folder.name}-") as draft:
        if sp.issparse(first):
            write_csr(draft / "it", blocks, shape)
        else:
            writer = RawWriter(draft / "it", first.dtype, 2)
            for block in blocks:
                writer.append(block)
            writer.close(shape[1:])
        if not folder.exists():
            (draft / "it").rename(folder)
        elif not same_files(draft / "it", folder):
            msg = f"{folder} holds another edit's expression: name another store, or remove it."
            raise FileExistsError(msg)
    return _mapped_csr(folder, shape) if sp.issparse(first) else mapped(folder)


def same_files(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files, byte by byte."""
    names = [{f.relative_to(one) for f in one.rglob("*") if f.is_file()} for one in (a, b)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(a, b, map(str, names[0]), shallow=False)[1:])


def _read(folder: Path, element: Any) -> Any:
    from anndata.io import read_elem

    if element.attrs.get("encoding-type") == "csr_matrix":
        matrix = _mapped_csr(folder, tuple(element.attrs["shape"]))
        if matrix is not None:
            return matrix
    if getattr(element, "ndim", 0) == 4:
        crops = lazy_crops(folder)
        if crops is not None:
            return crops
    return read_elem(element)


def _progress(folder: Path) -> str:
    progress = read_mark(folder / PROGRESS)
    if progress is None:
        return "nothing can be said about how far it got"
    done = len(list((folder / "parts").glob("[0-9]*.npz")))
    return f"{done} of {progress.get('units', '?')} pieces are done"
