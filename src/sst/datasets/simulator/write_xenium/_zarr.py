"""Masks and summary of a Xenium bundle's cells: ``cells.zarr.zip``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from sst.datasets.simulator._mosaic import Mosaic

    from ._layout import XeniumLayout


def write_cells_zarr(
    path: Path, whole: Mosaic, prefix: np.ndarray, cells: pd.DataFrame, pixel_size: float, form: XeniumLayout
) -> None:
    """Write ``masks/0`` (nuclei), ``masks/1`` (cells), ``cell_id``, ``cell_summary`` and what the version has of label indices."""
    import zarr

    n = len(cells)
    nuclei = whole.nuclei
    owners = np.unique(nuclei)
    owners = owners[owners > 0]
    if form.polygon_sets and len(owners) < n:
        # From 2.0 on a nucleus's label is its place among the nuclei, and says nothing of its cell.
        renumber = np.zeros(n + 1, np.uint32)
        renumber[owners] = np.arange(1, len(owners) + 1)
        nuclei = renumber[nuclei]
    summary = np.column_stack(
        [
            cells[["x_centroid", "y_centroid", "cell_area"]].to_numpy(float),
            whole.causes[["nucleus_x", "nucleus_y"]].to_numpy(float) * pixel_size,
            cells["nucleus_area"].to_numpy(float),
            np.zeros(n),
        ]
    )
    names = [
        "cell_centroid_x",
        "cell_centroid_y",
        "cell_area",
        "nucleus_centroid_x",
        "nucleus_centroid_y",
        "nucleus_area",
        "z_level",
    ]
    if form.polygon_sets:
        summary = np.column_stack([summary, cells["nucleus_count"].to_numpy(float)])
        names.append("nucleus_count")
    ids = np.column_stack([prefix, np.ones(n, np.uint32)]) if form.string_ids else cells["cell_id"].to_numpy(np.uint32)
    path.unlink(missing_ok=True)
    store = zarr.storage.ZipStore(path, mode="w")
    try:
        top = zarr.create_group(
            store,
            zarr_format=2,
            attributes={
                "major_version": 6 if form.polygon_sets else 4,
                "minor_version": 0,
                "name": "CellSegmentationDataset",
                "number_cells": n,
            },
        )
        masks = top.create_group("masks")
        for key, mask in (("0", nuclei), ("1", whole.cells)):
            _array(masks, key, mask, chunks=(1024, 1024))
        scale = np.diag([1 / pixel_size, 1 / pixel_size, 1.0, 1.0]).astype(np.float32)
        _array(masks, "homogeneous_transform", scale)
        _array(top, "cell_id", ids)
        _array(top, "cell_summary", summary, attributes={"column_names": names})
        if form.polygon_sets:
            sets = top.create_group("polygon_sets")
            for key, index in (("0", owners - 1), ("1", np.arange(n))):
                _array(sets.create_group(key), "cell_index", index.astype(np.uint32))
        elif form.string_ids:
            _array(top, "seg_mask_value", np.arange(1, n + 1, dtype=np.int32))
    finally:
        store.close()


def _array(
    group: object,
    name: str,
    values: np.ndarray,
    *,
    chunks: tuple[int, ...] | None = None,
    attributes: dict | None = None,
) -> None:
    size = tuple(min(c, s) for c, s in zip(chunks, values.shape, strict=True)) if chunks else values.shape
    array = group.create_array(  # type: ignore[attr-defined]
        name, shape=values.shape, dtype=values.dtype, chunks=size, attributes=attributes or {}
    )
    array[...] = values
