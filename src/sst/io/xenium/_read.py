"""A Xenium bundle as SpatialData, on ``spatialdata_io.xenium``."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._keys import SST, TABLE
from sst._settings import logger
from sst._strings import plain_strings
from sst._validate import check_range
from sst.io._raster import RasterFile, lazy_raster, raster_info, stain_name
from sst.io._read_log import ReadLog

from ._bare import decoded, read_bare, what_is_lacking
from ._clusters import join_clusters
from ._names import name_features

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class XeniumQuirks:
    """Facts of Xenium bundles, by version of the onboard analysis (XOA).

    XOA 1.x: ``morphology_mip.ome.tif`` and ``morphology_focus.ome.tif``, one stain; names of targets and cells may be
    bytes; cells are integers before 1.3. XOA 2-3: ``morphology_focus/morphology_focus_000N.ome.tif``, one file a stain,
    one or four of them. XOA 4: ``morphology_focus/chNNNN_<stain>.ome.tif``, names in the OME-XML. Each file's first page
    is the full resolution, the pyramid lies below it.

    Attributes
    ----------
    stains
        Names of the four stains of the segmentation kit (XOA 2-3), in the order of their files.
    gene_type
        The feature type of genes; ``protein_type`` that of proteins. Every other type is a control.
    control_columns
        Controls whose column in the vendor's own cell table has another name than the feature type.
    needed
        Files without which a bundle is not read.
    """

    stains: tuple[str, ...] = ("DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin")
    gene_type: str = "Gene Expression"
    protein_type: str = "Protein Expression"
    control_columns: tuple[tuple[str, str], ...] = (
        ("Negative Control Probe", "control_probe_counts"),
        ("Negative Control Codeword", "control_codeword_counts"),
    )
    needed: tuple[str, ...] = (
        "experiment.xenium",
        "cell_feature_matrix.h5",
        "cells.parquet",
        "transcripts.parquet",
    )


QUIRKS = XeniumQuirks()
_SMALL = 256  # px: no pyramid level below this
_CHUNK = 2048


def load_xenium(path: Path, *, min_qv: float | None, boundaries: bool, clusters: bool) -> SpatialData:
    """See :func:`sst.pp.read_xenium`."""
    if min_qv is not None:
        check_range("min_qv", min_qv, low=0)
    log = ReadLog()
    experiment = _check_files(path)
    pixel_size = float(experiment["pixel_size"])
    shapes = {kind: boundaries and _parquet_there(path / f"{kind}_boundaries.parquet") for kind in ("cell", "nucleus")}
    for kind, there in shapes.items():
        if not there:
            log.add(f"{kind} boundaries", "left", 1, "not asked for" if not boundaries else "no file, or no row in it")
    transcripts = _parquet_there(path / "transcripts.parquet")
    if not transcripts:
        log.skip("transcripts", 1, "no row in transcripts.parquet")
    sdata = _elements(path, pixel_size, log, shapes, transcripts=transcripts)
    for name, image in _images(path, log).items():
        sdata.images[name] = image
    table = _genes_only(sdata[TABLE], log)
    _check_cells(path, table)
    if transcripts:
        name_features(table, sdata.points["transcripts"], log)
    table.obs["x_px"] = table.obsm["spatial"][:, 0] / pixel_size
    table.obs["y_px"] = table.obsm["spatial"][:, 1] / pixel_size
    _nuclei(path, table, log)
    if clusters:
        join_clusters(path, table, log)
    table.obs, table.var = plain_strings(table.obs), plain_strings(table.var)
    del sdata.tables[TABLE]
    sdata.tables[TABLE] = table
    if transcripts:
        _filter_points(sdata, min_qv, log, path)
    version = str(experiment.get("analysis_sw_version", "unknown"))
    log.facts |= {"layout": f"xenium {version}", "min_qv": float(min_qv or 0)}
    logger.info("%s: Xenium bundle %s, %d cells, %d genes, images: %s", path, version, table.n_obs, table.n_vars,
                ", ".join(sdata.images) or "none")  # fmt: skip
    extent = {name: [int(n) for n in image["scale0"]["image"].shape[1:]] for name, image in sdata.images.items()}
    sdata.attrs[SST] = {
        "vendor": "xenium",
        "pixel_size": pixel_size,
        "fovs": [],
        "extent": extent,
        "read": log.to_dict(),
    }
    return sdata


def _elements(
    path: Path, pixel_size: float, log: ReadLog, shapes: dict[str, bool], *, transcripts: bool
) -> SpatialData:
    """All but the images: by ``spatialdata_io`` where the bundle has what that needs; without aligned images that it cannot read."""
    import spatialdata_io

    lacking = what_is_lacking(path)
    if lacking:
        log.skip("labels and boundaries", 1, lacking)
        return read_bare(path, pixel_size, log, transcripts=transcripts)
    trouble: Exception | None = None
    first = None
    for aligned, nuclei in ((True, shapes["nucleus"]), (False, shapes["nucleus"]), (False, False)):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*not unique.*")
                sdata = spatialdata_io.xenium(
                    path,
                    cells_boundaries=shapes["cell"],
                    nucleus_boundaries=nuclei,
                    transcripts=transcripts,
                    morphology_mip=False,
                    morphology_focus=False,
                    aligned_images=aligned,
                    gex_only=False,
                )
        except (AssertionError, KeyError, IndexError, OSError, ValueError) as error:
            trouble, first = error, first or error
            continue
        if shapes["nucleus"] and not nuclei:
            log.skip("nucleus boundaries", 1, f"they do not fit the labels ({type(trouble).__name__}: {trouble})")
        elif not aligned:
            log.skip(
                "aligned images",
                1,
                f"not an image of 3 or 4 channels, or cut off ({type(trouble).__name__}: {trouble})",
            )
        return sdata
    msg = f"{path}: the bundle's files contradict each other or are cut off ({type(first).__name__}: {first})."
    raise ValueError(msg) from first


def _check_files(path: Path) -> dict[str, Any]:
    """Everything needed is there and opens; returns ``experiment.xenium``."""
    import h5py

    if not path.is_dir():
        msg = f"{path} is not a folder; a Xenium bundle is the unpacked 'outs' folder."
        raise FileNotFoundError(msg)
    missing = [name for name in QUIRKS.needed if not (path / name).exists()]
    if missing:
        there = sorted(p.name for p in path.iterdir())
        other = " That is a CosMx slide: sst.pp.read_cosmx." if any("exprMat_file" in name for name in there) else ""
        msg = f"{path}: no {', no '.join(missing)}. There: {', '.join(there[:20]) or 'nothing'}.{other}"
        raise FileNotFoundError(msg)
    try:
        experiment = json.loads((path / "experiment.xenium").read_text())
    except ValueError as error:
        msg = f"{path / 'experiment.xenium'} is not whole JSON ({error})."
        raise ValueError(msg) from error
    if not isinstance(experiment, dict) or "pixel_size" not in experiment:
        msg = f"{path / 'experiment.xenium'} has no pixel_size."
        raise ValueError(msg)
    size = experiment["pixel_size"]
    if not isinstance(size, (int, float)) or not np.isfinite(size) or size <= 0:
        msg = f"{path / 'experiment.xenium'}: pixel_size={size!r} is not a number above 0."
        raise ValueError(msg)
    if (path / "cells.zarr.zip").exists() and not zipfile.is_zipfile(path / "cells.zarr.zip"):
        msg = f"{path / 'cells.zarr.zip'} is not a whole zip file; is it truncated?"
        raise ValueError(msg)
    try:
        with h5py.File(path / "cell_feature_matrix.h5"):
            pass
    except OSError as error:
        msg = f"{path / 'cell_feature_matrix.h5'} cannot be opened; is it truncated? ({error})"
        raise ValueError(msg) from error
    for name in ("cells.parquet", "transcripts.parquet"):
        _parquet_there(path / name)
    return experiment


def _parquet_there(file: Path) -> bool:
    """Whether the table is there and has rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.exists():
        return False
    try:
        return pq.ParquetFile(file).metadata.num_rows > 0
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{file} is not a whole parquet file; is it truncated? ({error})"
        raise ValueError(msg) from error


def _images(path: Path, log: ReadLog) -> dict[str, Any]:
    """Full-resolution stains, tile by tile, with their names."""
    images = {}
    for name in ("morphology_focus", "morphology_mip"):
        single = path / f"{name}.ome.tif"
        if single.exists():
            images[name] = _image([single], ["DAPI"])
    folder = path / "morphology_focus"
    if folder.is_dir():
        files = sorted(f for f in folder.glob("*.ome.tif") if not f.name.startswith("._"))
        if files:
            images["morphology_focus"] = _image(files, stain_names(files))
    if not images:
        log.skip("images", 1, "neither morphology_focus nor morphology_mip is there")
    for name, image in images.items():
        n = image["scale0"].sizes["c"]
        log.add(name, "used", n)
    if (path / "morphology.ome.tif").exists():
        log.add("morphology.ome.tif", "left", 1, "the stack of planes is not used")
    return images


def stain_names(files: list[Path]) -> list[str]:
    """Names of the stains in ``morphology_focus/``, one a file.

    Raises
    ------
    ValueError
        The files are neither those of XOA 2-3 (``morphology_focus_0000`` and on, one or four) nor of XOA 4.
    """
    stems = [f.name.removesuffix(".ome.tif") for f in files]
    if all(re.fullmatch(r"morphology_focus_\d{4}", s) for s in stems):
        if [int(s[-4:]) for s in stems] != list(range(len(stems))) or len(stems) not in (1, len(QUIRKS.stains)):
            msg = f"{files[0].parent}: expected one stain or {len(QUIRKS.stains)}, numbered from 0000; found {stems}."
            raise ValueError(msg)
        return list(QUIRKS.stains[: len(stems)])
    if not all(re.match(r"ch\d{4}_", s) for s in stems):
        msg = f"{files[0].parent}: expected morphology_focus_NNNN.ome.tif or chNNNN_<stain>.ome.tif; found {stems}."
        raise ValueError(msg)
    xml = raster_info(RasterFile(str(files[0]))).description
    numbers = [int(s[2:6]) for s in stems]
    tags = re.findall(r"<Channel\b[^>]*>", xml)
    found = {}
    for tag in tags:
        number, name = re.search(r'ID="Channel:(?:\d+:)?(\d+)"', tag), re.search(r'\bName="([^"]+)"', tag)
        if number and name:
            found[int(number.group(1))] = name.group(1).replace("&amp;", "&")
    names = [stain_name(found.get(n, s[7:])) for n, s in zip(numbers, stems, strict=True)]  # a stain may be missing
    return names if len(set(names)) == len(names) else [stain_name(s[7:]) for s in stems]


def _image(files: list[Path], names: list[str]) -> Any:
    import dask.array as da
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity

    planes = [lazy_raster(RasterFile(str(f)))[:1] for f in files]
    shapes = {p.shape[1:] for p in planes}
    if len(shapes) > 1:
        msg = f"{files[0].parent}: stains of different sizes: {sorted(shapes)}."
        raise ValueError(msg)
    image = da.concatenate(planes)
    levels = max(1, min(4, int(np.log2(max(min(image.shape[1:]) / _SMALL, 1)))))
    return Image2DModel.parse(
        image,
        dims=("c", "y", "x"),
        c_coords=names,
        transformations={"global": Identity()},
        scale_factors=[2] * levels,
        chunks={"c": 1, "y": _CHUNK, "x": _CHUNK},
    )


def _genes_only(table: AnnData, log: ReadLog) -> AnnData:
    """Genes in ``var``; proteins in ``obsm["protein"]``; the other feature types summed in ``obs``."""
    from spatialdata.models import TableModel

    kinds = table.var["feature_types"].astype(str).to_numpy()
    if not (kinds == QUIRKS.gene_type).any():
        msg = f"no feature of type {QUIRKS.gene_type!r}; there are {sorted(set(kinds))}."
        raise ValueError(msg)
    attrs = table.uns.get(TableModel.ATTRS_KEY)
    genes = table[:, kinds == QUIRKS.gene_type].copy()
    if not genes.var_names.is_unique:
        twice = sorted(set(genes.var_names[genes.var_names.duplicated()]))
        msg = f"genes named twice in the feature matrix: {twice[:5]}."
        raise ValueError(msg)
    for kind in sorted(set(kinds) - {QUIRKS.gene_type}):
        part = table[:, kinds == kind]
        log.add(f"features: {kind}", "left" if kind != QUIRKS.protein_type else "used", part.n_vars, "counted in obs")
        if kind == QUIRKS.protein_type:
            genes.obsm["protein"] = pd.DataFrame(
                part.to_df().to_numpy(), index=genes.obs_names, columns=list(part.var_names)
            )
            continue
        name = dict(QUIRKS.control_columns).get(kind, f"{kind.lower().replace(' ', '_')}_counts")
        if name not in genes.obs:
            genes.obs[name] = np.asarray(part.X.sum(axis=1)).ravel().astype(np.int32)
    if attrs is not None:
        genes.uns[TableModel.ATTRS_KEY] = attrs
    log.add("cells", "used", genes.n_obs)
    return genes


def _check_cells(path: Path, table: AnnData) -> None:
    twice = table.obs["cell_id"].duplicated()
    if twice.any():
        msg = f"{path / 'cells.parquet'}: cell_id {table.obs.loc[twice, 'cell_id'].iloc[0]!r} is there twice ({int(twice.sum())} are)."
        raise ValueError(msg)


def _nuclei(path: Path, table: AnnData, log: ReadLog) -> None:
    """``x_nucleus_um``, ``y_nucleus_um``: mean of the nucleus boundary's vertices; the larger nucleus where there are two."""
    file = path / "nucleus_boundaries.parquet"
    if not _parquet_there(file):
        log.skip("nucleus centres", table.n_obs, "no nucleus_boundaries.parquet, or no row in it")
        return
    vertices = pd.read_parquet(file)
    vertices["cell_id"] = decoded(vertices["cell_id"])
    keys = ["cell_id", "label_id"] if "label_id" in vertices else ["cell_id"]
    after = vertices.groupby(keys, sort=False)[["vertex_x", "vertex_y"]].shift(-1)
    cross = vertices["vertex_x"] * after["vertex_y"] - after["vertex_x"] * vertices["vertex_y"]
    groups = vertices.assign(area=cross).groupby(keys, sort=False)
    nuclei = groups.agg(x=("vertex_x", "mean"), y=("vertex_y", "mean"), area=("area", "sum")).reset_index()
    nuclei["area"] = nuclei["area"].abs()
    nuclei = nuclei.sort_values("area", ascending=False, kind="stable").drop_duplicates("cell_id").set_index("cell_id")
    nuclei = nuclei.reindex(table.obs["cell_id"].to_numpy())
    table.obs["x_nucleus_um"], table.obs["y_nucleus_um"] = nuclei["x"].to_numpy(float), nuclei["y"].to_numpy(float)
    without = int(nuclei["x"].isna().sum())
    log.add("nucleus centres", "used", table.n_obs - without, f"{without} cells have no nucleus" if without else "")


def _filter_points(sdata: SpatialData, min_qv: float | None, log: ReadLog, path: Path) -> None:
    """Keep transcripts of quality ``min_qv`` and better, each once, lazily."""
    import dask
    from spatialdata.models import PointsModel
    from spatialdata.transformations import get_transformation

    points = sdata.points["transcripts"]
    transformations = get_transformation(points, get_all=True)
    if twice := _ids_twice(path / "transcripts.parquet"):
        log.skip("transcripts", 1, f"{twice:.0%} of a sample of transcript_id are there again: each is read once")
        points = points.drop_duplicates(subset=["transcript_id"])
    elif not min_qv:
        log.add("transcripts", "used", 0, "all qualities; not counted")
        return
    better = points
    if min_qv:
        if "qv" not in points.columns:
            msg = (
                f"{path / 'transcripts.parquet'} has no column 'qv'; min_qv=None reads all transcripts. It has "
                f"{list(points.columns)}."
            )
            raise ValueError(msg)
        total, good = (int(n) for n in dask.compute(points["qv"].count(), (points["qv"] >= min_qv).sum()))
        log.add("transcripts", "used", good)
        log.add("transcripts", "left", total - good, f"qv < {min_qv:g}")
        better = points[points["qv"] >= min_qv]
    better.attrs.clear()  # the parser writes them anew
    kept = PointsModel.parse(
        better,
        coordinates={a: a for a in ("x", "y", "z") if a in points.columns},
        feature_key="feature_name",
        instance_key="cell_id",
        transformations=transformations,
        sort=True,
    )
    del sdata.points["transcripts"]
    sdata.points["transcripts"] = kept


def _ids_twice(file: Path, every: int = 64) -> float:
    """Share of transcripts' ids that occur more than once, among one in ``every`` of the ids."""
    import pyarrow.parquet as pq

    whole = pq.ParquetFile(file)
    if "transcript_id" not in whole.schema_arrow.names:
        return 0.0
    kept = []
    for batch in whole.iter_batches(1 << 20, columns=["transcript_id"]):
        ids = batch.column(0).to_pandas()
        if not pd.api.types.is_numeric_dtype(ids):
            ids = pd.util.hash_array(ids.astype(str).to_numpy(object))
        ids = np.asarray(ids)
        kept.append(ids[ids % every == 0] if whole.metadata.num_rows > every * 1000 else ids)
    ids = np.concatenate(kept)
    return 1 - len(np.unique(ids)) / len(ids) if len(ids) else 0.0
