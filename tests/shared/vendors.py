"""Simulated tissue in the layouts of other vendors, as small as their readers take them."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import tifffile
from packaging.version import Version

import sst

if TYPE_CHECKING:
    from pathlib import Path

    from sst.datasets import Tissue

MICRONS_PER_PIXEL = 0.108  # MERSCOPE
FIRST_ENTITY = 5_000_000_000_000_000  # its cells are named by numbers of this size
HEMATOXYLIN = np.array([0.650, 0.704, 0.286])  # optical density of red, green, blue (Ruifrok and Johnston 2001)
EOSIN = np.array([0.072, 0.990, 0.105])


def small_tissue(n_cells: int = 60, seed: int = 0) -> Tissue:
    """Two slides of one field of view."""
    return sst.datasets.simulate_tissue(n_cells=n_cells, n_genes=20, fovs=1, seed=seed)


def merscope_is_read() -> bool:
    """spatialdata-io up to 0.7.1 gives AnnData a ``dtype=``, which 0.13 does not take."""
    return Version(version("anndata")) < Version("0.13") or Version(version("spatialdata-io")) > Version("0.7.1")


def write_merscope(tissue: Tissue, slide: str, folder: Path, *, z: int = 3, boundaries: bool = True) -> Path:
    """``RUN/region_0`` of one slide: mosaics, their transformation, transcripts, polygons, counts and metadata of the cells.

    Positions are in micrometres; the mosaic begins at another point than they do.
    """
    import geopandas as gpd
    import shapely

    region = folder / "202401011200_small_VMSC00001" / "region_0"
    (region / "images").mkdir(parents=True)
    view = tissue.draw(slide, 1, channels=("CD298/B2M", "DAPI"))
    scale, offset = 1 / MICRONS_PER_PIXEL, np.array([12.5, 31.25])
    np.savetxt(
        region / "images" / "micron_to_mosaic_pixel_transform.csv",
        [[scale, 0, offset[0]], [0, scale, offset[1]], [0, 0, 1]],
    )
    for name, plane in zip(("Cellbound1", "DAPI"), view.images, strict=True):
        tifffile.imwrite(region / "images" / f"mosaic_{name}_z{z}.tif", plane)
    names = tissue.genes.index.astype(str)

    def um(px: np.ndarray, axis: int) -> np.ndarray:
        return (px - offset[axis]) * MICRONS_PER_PIXEL

    cells = (FIRST_ENTITY + np.arange(1, len(view.causes) + 1)).astype(str)
    t = view.transcripts
    pd.DataFrame(
        {
            "barcode_id": t["gene"],
            "global_x": um(t["x"], 0),
            "global_y": um(t["y"], 1),
            "global_z": 3.0,
            "x": t["x"],
            "y": t["y"],
            "fov": 0,
            "gene": names[t["gene"]],
            "transcript_id": [f"ENST{g:05d}" for g in t["gene"]],
            "cell_id": np.where(t["cell"] > 0, FIRST_ENTITY + t["cell"].astype(np.int64), -1),
        }
    ).to_csv(region / "detected_transcripts.csv")
    counts = np.zeros((len(cells), len(names)), int)
    on = t["cell"] > 0
    np.add.at(counts, (t["cell"][on] - 1, t["gene"][on]), 1)
    table = pd.DataFrame(counts, index=pd.Index(cells, name="cell"), columns=names).assign(**{"Blank-1": 0})
    table.to_csv(region / "cell_by_gene.csv")
    centre = {"center_x": um(view.causes["x"].to_numpy(), 0), "center_y": um(view.causes["y"].to_numpy(), 1)}
    about = pd.DataFrame({"fov": 0, "volume": 500.0, **centre}, index=pd.Index(cells, name="EntityID"))
    about.to_csv(region / "cell_metadata.csv")
    if boundaries:
        circles = shapely.points(about["center_x"], about["center_y"])
        outlines = [shapely.MultiPolygon([p.buffer(3.0)]) for p in circles]
        ids = FIRST_ENTITY + np.arange(1, len(cells) + 1)
        gpd.GeoDataFrame(
            {"ID": np.arange(len(cells)), "EntityID": ids, "ZIndex": 0}, geometry=outlines
        ).rename_geometry("Geometry").to_parquet(region / "cell_boundaries.parquet")
    return region


def stained(view: sst.datasets.FieldOfView) -> np.ndarray:
    """A field of view as H&E would show it, y x x x 3 uint8: hematoxylin where DAPI was, eosin where the cells are."""
    nuclei, cells = view.images[1].astype(float), view.labels > 0
    nuclei = np.clip((nuclei - np.quantile(nuclei, 0.1)) / np.ptp(np.quantile(nuclei, [0.1, 0.995])), 0, 1)
    density = 0.05 + 0.9 * nuclei[..., None] * HEMATOXYLIN + (0.12 + 0.25 * cells)[..., None] * EOSIN
    return np.rint(255 * 10**-density).astype(np.uint8)


def write_visium_hd(tissue: Tissue, slide: str, folder: Path, *, bins: tuple[int, ...] = (8, 16)) -> Path:
    """``outs`` of one slide: an H&E of a field of view and square bins of its transcripts."""
    import shutil

    outs = folder / "outs"
    view = tissue.draw(slide, 1, channels=("CD298/B2M", "DAPI"))
    picture = stained(view)
    um = tissue.config.pixel_size
    (outs / "spatial").mkdir(parents=True)
    (outs / "microscope_image").mkdir()
    tifffile.imwrite(outs / "microscope_image" / "he.tif", picture, photometric="rgb")
    scales = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.125, "microns_per_pixel": um}
    import imageio.v3 as iio

    iio.imwrite(outs / "spatial" / "tissue_hires_image.png", picture[::2, ::2])
    iio.imwrite(outs / "spatial" / "tissue_lowres_image.png", picture[::8, ::8])
    for edge in bins:
        _write_bins(outs / "binned_outputs" / f"square_{edge:03d}um", tissue, view, edge, scales)
    shutil.copytree(
        outs / "binned_outputs" / f"square_{bins[0]:03d}um" / "spatial", outs / "spatial", dirs_exist_ok=True
    )
    eye = np.eye(3).ravel().tolist()
    directions = ("cytassist_colrow_to_spot_colrow", "microscope_colrow_to_spot_colrow")
    backwards = ("spot_colrow_to_cytassist_colrow", "spot_colrow_to_microscope_colrow")
    with h5py.File(outs / f"{slide}_feature_slice.h5", "w") as file:
        layout = {"file_format": "1.0", "transform": eye}
        matrices = dict.fromkeys((*directions, *backwards), eye)
        file.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps(layout), "transform_matrices": matrices})
    return outs


def _write_bins(
    folder: Path, tissue: Tissue, view: sst.datasets.FieldOfView, edge: int, scales: dict[str, float]
) -> None:
    import scipy.sparse as sp

    (folder / "spatial").mkdir(parents=True)
    width = edge / scales["microns_per_pixel"]  # px
    side = int(view.labels.shape[0] // width)
    t = view.transcripts
    column, row = (t[axis] // width for axis in ("x", "y"))
    inside = (column < side) & (row < side)
    bin_of = (row * side + column)[inside].astype(int)
    shape = (side * side, len(tissue.genes))
    counts = sp.coo_matrix((np.ones(len(bin_of), np.int32), (bin_of, t["gene"][inside])), shape=shape).tocsr()
    grid = np.indices((side, side)).reshape(2, -1)
    barcodes = np.array([f"s_{edge:03d}um_{r:05d}_{c:05d}-1" for r, c in grid.T])
    pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": 1,
            "array_row": grid[0],
            "array_col": grid[1],
            "pxl_row_in_fullres": (grid[0] + 0.5) * width,
            "pxl_col_in_fullres": (grid[1] + 0.5) * width,
        }
    ).to_parquet(folder / "spatial" / "tissue_positions.parquet")
    (folder / "spatial" / "scalefactors_json.json").write_text(
        json.dumps(scales | {"bin_size_um": float(edge), "spot_diameter_fullres": width})
    )
    filled = np.flatnonzero(counts.getnnz(axis=1))
    kept = counts[filled]
    names = tissue.genes.index.astype(str)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        matrix["data"], matrix["indices"], matrix["indptr"] = kept.data, kept.indices.astype(np.int64), kept.indptr
        matrix["shape"] = np.array([len(names), len(filled)], np.int32)
        matrix["barcodes"] = barcodes[filled].astype("S")
        features = matrix.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(len(names))], "S")
        features["name"] = names.to_numpy().astype("S")
        features["feature_type"] = np.array(["Gene Expression"] * len(names), "S")
        features["genome"] = np.array(["GRCh38"] * len(names), "S")
