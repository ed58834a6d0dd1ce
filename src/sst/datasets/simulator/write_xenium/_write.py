"""A simulated tissue as Xenium bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._settings import logger
from sst._validate import check_choice
from sst.datasets.simulator._mosaic import Mosaic, make_mosaic
from sst.datasets.simulator._outlines import CORNERS, inner_points, trace
from sst.datasets.simulator._truth import write_truth

from ._layout import CONTROLS, STAINS, VERSIONS, XeniumLayout
from ._pictures import write_pictures
from ._zarr import write_cells_zarr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sst.datasets.simulator._slides import Slides


def write_xenium(
    tissue: Slides,
    folder: str | Path,
    *,
    version: str = "1.3.0",
    stains: Sequence[str] = ("DAPI",),
    min_qv: float = 20.0,
    compression: str | None = "zlib",
) -> list[Path]:
    """Write the slides as Xenium bundles: each slide one picture, its fields of view side by side.

    Parameters
    ----------
    tissue
        The tissue.
    folder
        Where; one bundle a slide is made in it, named after the slide.
    version
        Of the vendor's software: ``"1.0.1"`` (numbered cells), ``"1.3.0"`` (the paper's), ``"3.0.0"`` or ``"4.0.0"``
        (``morphology_focus/``).
    stains
        ``("DAPI",)``, or all four of the segmentation kit from version 3 on: DAPI, CD298/B2M, rRNA and PanCK, which are given the
        kit's names (boundary, interior RNA, interior protein).
    min_qv
        Transcripts of less quality are in the table of transcripts and not in the cells' counts.
    compression
        Of the pictures.

    Returns
    -------
    The bundles, in the order of ``config.slides``: ``experiment.xenium``, ``cells.parquet``, ``cell_boundaries.parquet``,
    ``nucleus_boundaries.parquet``, ``transcripts.parquet``, ``cell_feature_matrix.h5``, ``cells.zarr.zip``, pictures, and the
    types of cells as ``analysis/clustering/gene_expression_kmeans_2_clusters/clusters.csv``. The truth lies beside them (its column
    ``cell_id`` has the bundles' names of the cells).
    """
    check_choice("version", version, list(VERSIONS))
    for stain in stains:
        check_choice("stain", stain, list(STAINS))
    form = VERSIONS[version]
    if list(stains) != ["DAPI"] and (list(stains) != list(STAINS) or not form.focus_folder):
        msg = f"stains={tuple(stains)!r}: version {version} has ('DAPI',)" + (
            f" or {tuple(STAINS)!r}." if form.focus_folder else " only."
        )
        raise ValueError(msg)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for group in tissue.config.slides:
        path = out / group
        path.mkdir(parents=True, exist_ok=True)
        _write_bundle(tissue, group, path, form, stains, min_qv, compression)
        paths.append(path)
        logger.info("wrote slide %s (XOA %s) to %s", group, version, path)
    n = tissue.config.n_cells
    ids = cell_names(n)[1] if form.string_ids else np.arange(1, n + 1)
    write_truth(tissue, out, cell_id=ids.tolist() * len(tissue.config.slides), layout="xenium", version=version)
    return paths


def cell_names(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Prefixes and names of cells: each prefix's hexadecimal digits are letters from a to p, followed by ``-1``."""
    prefix = (np.arange(1, n + 1, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(2**32)).astype(np.uint32)
    digits = (prefix[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)) & np.uint32(15)
    text = np.ascontiguousarray(digits.astype(np.uint8) + np.uint8(97)).view("S8").ravel().astype(str)
    return prefix, np.char.add(text, "-1")


def _write_bundle(
    tissue: Slides,
    group: str,
    path: Path,
    form: XeniumLayout,
    stains: Sequence[str],
    min_qv: float,
    compression: str | None,
) -> None:
    um = tissue.config.pixel_size
    whole = make_mosaic(tissue, group, stains)
    n = len(whole.causes)
    prefix, names = cell_names(n)
    ids = names if form.string_ids else np.arange(1, n + 1, dtype=np.int32)
    targets, kinds = _targets(tissue)
    found = _with_controls(tissue, group, whole)
    write_pictures(path, whole.images, stains, form, um, compression)
    good = (found["qv"] >= min_qv) & (found["cell"] > 0)
    counts = _counts(found, good, n, len(targets))
    _write_matrix(path / "cell_feature_matrix.h5", counts, ids.astype(str), targets, kinds, group)
    areas = {
        k: np.bincount(m.ravel(), minlength=n + 1)[1:] * um**2
        for k, m in (("cell", whole.cells), ("nucleus", whole.nuclei))
    }
    cells = _cell_table(whole, ids, counts, kinds, areas, um, form)
    cells.to_parquet(path / "cells.parquet", index=False)
    cells.to_csv(path / "cells.csv.gz", index=False)
    for mask, name in ((whole.cells, "cell"), (whole.nuclei, "nucleus")):
        _boundaries(mask, whole, ids, um, form).to_parquet(path / f"{name}_boundaries.parquet", index=False)
    _transcript_table(found, ids, targets, kinds, um, form).to_parquet(path / "transcripts.parquet", index=False)
    write_cells_zarr(path / "cells.zarr.zip", whole, prefix, cells, um, form)
    folder = path / "analysis" / "clustering" / "gene_expression_kmeans_2_clusters"
    folder.mkdir(parents=True, exist_ok=True)
    kind = pd.Categorical(whole.causes["cell_type"]).codes + 1
    pd.DataFrame({"Barcode": ids, "Cluster": kind}).to_csv(folder / "clusters.csv", index=False)
    note = {
        "major_version": 5,
        "minor_version": 0,
        "run_name": "simulated",
        "region_name": group,
        "preservation_method": "ffpe",
        "num_cells": n,
        "transcripts_per_cell": int(np.median(counts.sum(1))),
        "panel_num_targets_predesigned": len(tissue.genes),
        "panel_num_targets_custom": 0,
        "panel_organism": "Human",
        "pixel_size": um,
        "z_step_size": 3.0,
        "analysis_sw_version": f"{'xenium' if form.string_ids else 'Xenium'}-{form.version}",
        "images": {"morphology_filepath": "morphology.ome.tif"},
        "xenium_explorer_files": {"cells_zarr_filepath": "cells.zarr.zip"},
    }
    (path / "experiment.xenium").write_text(json.dumps(note, indent=1) + "\n")


def _targets(tissue: Slides) -> tuple[list[str], list[str]]:
    more = [(name.format(i + 1), kind) for name, kind, number in CONTROLS for i in range(number)]
    genes = [str(g) for g in tissue.genes.index]
    return genes + [name for name, _ in more], ["Gene Expression"] * len(genes) + [kind for _, kind in more]


def _with_controls(tissue: Slides, group: str, whole: Mosaic) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([tissue.config.seed, tissue.config.slides.index(group), 10])
    total = sum(number for *_, number in CONTROLS)
    gene = np.repeat(len(tissue.genes) + np.arange(total), rng.poisson(0.02 * len(whole.causes), total)).astype(
        np.int32
    )
    height, width = whole.cells.shape
    x, y = (np.floor(rng.uniform(0, end, len(gene)) * 8) / 8 + 0.0625 for end in (width, height))
    at = (y.astype(int), x.astype(int))
    extra = {
        "x": x,
        "y": y,
        "z": rng.integers(0, 8, len(gene)).astype(np.int8),
        "gene": gene,
        "source": np.zeros(len(gene), np.int32),
        "qv": np.where(rng.random(len(gene)) < 0.5, 40.0, 15.0).astype(np.float32),
        "cell": whole.cells[at].astype(np.int64),
        "nucleus": whole.nuclei[at] > 0,
        "fov": np.ones(len(gene), np.int32),
    }
    return {k: np.concatenate([v, extra[k]]) for k, v in whole.transcripts.items()}


def _counts(found: dict[str, np.ndarray], good: np.ndarray, n: int, p: int) -> np.ndarray:
    flat = (found["cell"][good].astype(np.int64) - 1) * p + found["gene"][good]
    return np.bincount(flat, minlength=n * p).reshape(n, p)


def _write_matrix(
    path: Path, counts: np.ndarray, ids: np.ndarray, targets: list[str], kinds: list[str], group: str
) -> None:
    """The vendor's HDF5: a features x cells matrix in compressed sparse columns."""
    import h5py
    import scipy.sparse as sp

    matrix = sp.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        file.attrs.update({"filetype": "matrix", "library_ids": group, "version": 2})
        top = file.create_group("matrix")
        top["barcodes"] = ids.astype("S")
        top.create_dataset("data", data=matrix.data.astype(np.int32), compression="gzip")
        top.create_dataset("indices", data=matrix.indices.astype(np.int64), compression="gzip")
        top["indptr"] = matrix.indptr.astype(np.int64)
        top["shape"] = np.array([len(targets), len(ids)], np.int32)
        features = top.create_group("features")
        features["_all_tag_keys"] = np.array([b"genome"])
        features["feature_type"] = np.array(kinds, dtype="S")
        features["genome"] = np.array([b"GRCh38"] * len(targets))
        features["id"] = np.array(
            [
                f"SIM{i:05d}" if k == "Gene Expression" else t
                for i, (t, k) in enumerate(zip(targets, kinds, strict=True))
            ],
            dtype="S",
        )
        features["name"] = np.array(targets, dtype="S")


def _cell_table(
    whole: Mosaic,
    ids: np.ndarray,
    counts: np.ndarray,
    kinds: list[str],
    areas: dict[str, np.ndarray],
    um: float,
    form: XeniumLayout,
) -> pd.DataFrame:
    kind = np.array(kinds)
    centre = np.floor(whole.causes[["x", "y"]].to_numpy()) + 0.5
    out = pd.DataFrame({"cell_id": ids, "x_centroid": centre[:, 0] * um, "y_centroid": centre[:, 1] * um})
    out["transcript_counts"] = counts[:, kind == "Gene Expression"].sum(1)
    out["control_probe_counts"] = counts[:, kind == "Negative Control Probe"].sum(1)
    out["control_codeword_counts"] = counts[:, kind == "Negative Control Codeword"].sum(1)
    if form.polygon_sets:
        out["unassigned_codeword_counts"] = 0
        out["deprecated_codeword_counts"] = 0
    out["total_counts"] = counts.sum(1)
    out["cell_area"], out["nucleus_area"] = areas["cell"], areas["nucleus"]
    if form.polygon_sets:
        out["nucleus_count"] = (areas["nucleus"] > 0).astype(np.int64)
        out["segmentation_method"] = "Segmented by boundary stain (ATP1A1+CD45+E-Cadherin)"
    return out


def _boundaries(mask: np.ndarray, whole: Mosaic, ids: np.ndarray, um: float, form: XeniumLayout) -> pd.DataFrame:
    causes = whole.causes
    wanted, at_x, at_y = inner_points(mask, causes["nucleus_x"].to_numpy(), causes["nucleus_y"].to_numpy())
    x, y = trace(mask, wanted, at_x, at_y)
    # Rings are closed: the first corner is repeated.
    x, y = (np.concatenate([v, v[:, :1]], axis=1) * um for v in (x, y))
    out = pd.DataFrame({"cell_id": np.repeat(ids[wanted - 1], CORNERS + 1)})
    out["vertex_x"], out["vertex_y"] = x.ravel().astype(np.float32), y.ravel().astype(np.float32)
    if form.polygon_sets:
        out["label_id"] = np.repeat(np.arange(1, len(wanted) + 1), CORNERS + 1)
    return out


def _transcript_table(
    found: dict[str, np.ndarray], ids: np.ndarray, targets: list[str], kinds: list[str], um: float, form: XeniumLayout
) -> pd.DataFrame:
    n = len(found["x"])
    outside = "UNASSIGNED" if form.string_ids else -1
    known = (
        np.concatenate([np.array([outside]), ids]) if form.string_ids else np.concatenate([[-1], ids]).astype(np.int32)
    )
    out = pd.DataFrame({"transcript_id": np.arange(n, dtype=np.uint64) + np.uint64(281474976710656)})
    out["cell_id"] = known[found["cell"]]
    out["overlaps_nucleus"] = found["nucleus"].astype(np.uint8)
    names = np.array(targets)[found["gene"]]
    out["feature_name"] = names if form.string_ids else np.char.encode(names)
    out["x_location"] = (found["x"] * um).astype(np.float32)
    out["y_location"] = (found["y"] * um).astype(np.float32)
    out["z_location"] = ((found["z"] + 0.5) * 1.2).astype(np.float32)
    out["qv"] = found["qv"]
    if form.string_ids:
        out["fov_name"] = np.char.add("A", found["fov"].astype(str))
        out["nucleus_distance"] = np.where(found["nucleus"], 0.0, 1.0).astype(np.float32)
    if form.polygon_sets:
        out["codeword_index"] = found["gene"]
        gene = np.array(kinds)[found["gene"]] == "Gene Expression"
        out["codeword_category"] = np.where(gene, "predesigned_gene", "negative_control_probe")
        out["is_gene"] = gene
    return out
