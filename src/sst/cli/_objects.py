"""Objects on disk: read without their images, written whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sst._files import new_file

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def read_object(path: Path) -> AnnData:
    """Read an AnnData: a crop store or another ``.zarr`` (images stay on disk), or ``.h5ad`` (all of it in memory).

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    import anndata as ad

    if not path.exists():
        msg = f"{path}: there is no such file or folder."
        raise FileNotFoundError(msg)
    if path.suffix == ".h5ad":
        return ad.read_h5ad(path)
    return _read_zarr(path)


def _read_zarr(path: Path) -> AnnData:
    import anndata as ad
    import dask.array as da
    import zarr
    from anndata.io import read_elem

    from sst.io import open_store

    root: Any = zarr.open_group(path, mode="r")
    if "sst_store" in root.attrs:
        return open_store(path)
    lazy = {}
    if "obsm" in root:
        lazy = {k: root["obsm"][k] for k in root["obsm"] if getattr(root["obsm"][k], "ndim", 0) == 4}
    if not lazy:
        return ad.read_zarr(path)
    parts: dict[str, Any] = {name: read_elem(root[name]) for name in ("X", "obs", "var", "uns") if name in root}
    for name in ("obsm", "varm", "obsp", "varp", "layers"):
        if name in root:
            held = {k: root[name][k] for k in root[name]}
            parts[name] = {
                k: da.from_zarr(v) if name == "obsm" and k in lazy else read_elem(v) for k, v in held.items()
            }
    return ad.AnnData(**parts)


def check_new(path: Path) -> None:
    """That nothing is where an object is to be written."""
    if path.exists():
        msg = f"--out {path}: exists already; name another."
        raise FileExistsError(msg)


def write_object(adata: AnnData, path: Path) -> None:
    """Write an AnnData to a new ``.zarr`` (a crop store: images go block by block) or ``.h5ad``.

    Raises
    ------
    FileExistsError
        Something is there: it is never overwritten.
    """
    from sst.io import write_store

    check_new(path)
    if path.suffix == ".h5ad":
        with new_file(path) as draft:
            adata.write_h5ad(draft)
    else:
        write_store(adata, path)
