"""The paper's two experiments: what is read, how it is cut, and which genes and cells are asked about."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._files import new_folder
from sst._settings import logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True, kw_only=True)
class Study:
    """One experiment of Wu and Koelzer (2024).

    Attributes
    ----------
    name, about
        For the command line.
    inputs
        What -> file names (a folder or zip, the first that is there is taken) under ``--data``.
    cells
        Cells of each slide, as published; for the plan until the real number is known.
    genes_of_interest
        The chosen genes.
    n_genes
        Genes of the panel.
    crop
        Keywords of :func:`sst.pp.crop_cells`.
    split
        Keywords of :func:`sst.pp.train_test_split`.
    """

    name: str
    about: str
    inputs: Mapping[str, tuple[str, ...]]
    cells: Mapping[str, int]
    genes_of_interest: tuple[str, ...]
    n_genes: int
    crop: Mapping[str, Any]
    split: Mapping[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> tuple[str, ...]:
        """Of the crops."""
        return tuple(self.crop["channels"])

    def find(self, data: Path) -> dict[str, Path]:
        """The inputs; ``FileNotFoundError`` that names what is missing and what was looked for."""
        found, missing = {}, []
        for what, names in self.inputs.items():
            path = next((data / n for n in names if (data / n).exists()), None)
            if path is None:
                missing.append(f"{what} ({' or '.join(names)})")
            else:
                found[what] = path
        if missing:
            msg = f"--data {data}: not there: {'; '.join(missing)}. sst.datasets.{self.name.replace('-', '_')}() downloads them."
            raise FileNotFoundError(msg)
        return found


STUDIES = {
    "cosmx-liver": Study(
        name="cosmx-liver",
        about="CosMx: normal liver and hepatocellular carcinoma, 1000 genes, CD298/B2M and DAPI",
        inputs={
            "normal": ("NormalLiverFiles", "NormalLiverFiles.zip"),
            "tumor": ("LiverCancerFiles", "LiverCancerFiles.zip"),
            "expression": ("LiverDataReleaseTileDB", "LiverDataReleaseTileDB.zip"),
        },
        cells={"normal": 340_000, "tumor": 464_000},
        genes_of_interest=("HLA-A", "B2M"),
        n_genes=1000,
        # transcripts are missing within 512 px of a field of view's low edges
        crop={"size": 160, "output_size": 128, "channels": ["CD298/B2M", "DAPI"], "border": 512, "center": "cell"},
        split={"by": "fov"},
    ),
    "xenium-lung": Study(
        name="xenium-lung",
        about="Xenium: healthy lung and invasive adenocarcinoma, 392 genes, DAPI",
        inputs={
            "normal": (
                "Xenium_Preview_Human_Non_diseased_Lung_With_Add_on_FFPE_outs",
                "Xenium_Preview_Human_Non_diseased_Lung_With_Add_on_FFPE_outs.zip",
            ),
            "tumor": (
                "Xenium_Preview_Human_Lung_Cancer_With_Add_on_2_FFPE_outs",
                "Xenium_Preview_Human_Lung_Cancer_With_Add_on_2_FFPE_outs.zip",
            ),
        },
        cells={"normal": 300_000, "tumor": 530_000},
        genes_of_interest=("MUC1", "KRT7", "RBM3", "EPCAM"),
        n_genes=392,
        crop={
            "size": 96,
            "output_size": 128,
            "channels": ["DAPI"],
            "image": "morphology_mip",
            "min_qv": 20,
            "assigned_only": True,
        },
        split={"by": "tile", "tile_size": 4096},
    ),
}


def read_slide(study: Study, slide: str, inputs: Mapping[str, Path], scratch: Path) -> SpatialData:
    """One slide, from the files as they were released."""
    import sst

    if study.name == "cosmx-liver":
        tables = _unpacked(inputs["expression"], scratch)
        # pictures in a zip would be unpacked anew each time a field of view is touched
        pictures = _unpacked(inputs[slide], scratch)
        return sst.pp.read_cosmx(pictures, tiledb=tables, slide={"normal": 1, "tumor": 2}[slide])
    return sst.pp.read_xenium(_unpacked(inputs[slide], scratch))


def subtype(study: Study, adata: AnnData) -> np.ndarray | None:
    """The cells of the paper's subtype; ``None``, with a warning, if they cannot be told.

    Liver: hepatocytes (``cellType`` ``Hep.*``) of the normal slide and ``tumor_1`` of the other. Lung: cluster 2 of the
    vendor's k-means with k = 2 (epithelial).
    """
    condition = adata.obs["condition"].astype(str).to_numpy()
    if study.name == "cosmx-liver":
        column = next((c for c in ("cellType", "cell_type") if c in adata.obs), None)
        if column is not None:
            kind = adata.obs[column].astype(str)
            mask = np.where(condition == "normal", kind.str.startswith("Hep"), kind == "tumor_1").astype(bool)
    else:
        column = next((c for c in adata.obs if "kmeans_2" in str(c)), None)
        if column is not None:
            mask = adata.obs[column].astype(str).isin({"2", "2.0"}).to_numpy()
    if column is None or not all(mask[condition == g].any() for g in np.unique(condition)):
        logger.warning(
            "the subtype's cells are not told by obs (%s): evaluating all cells only.", column or "no column"
        )
        return None
    return mask


def chosen_genes(study: Study, adata: AnnData, wanted: list[str] | None) -> list[str]:
    """``wanted``, or the study's genes as far as the panel has them."""
    if wanted:
        return wanted
    found = [g for g in study.genes_of_interest if g in adata.var_names]
    if not found:
        msg = f"none of {list(study.genes_of_interest)} is among the {adata.n_vars} genes: name others with --genes."
        raise KeyError(msg)
    return found


def _unpacked(path: Path, scratch: Path) -> Path:
    """A folder for a path that may be a zip; unpacked once, and the one folder inside taken if there is only one."""
    if path.is_dir():
        return path
    target = scratch / path.stem
    if not target.exists():
        try:
            with new_folder(target) as draft, zipfile.ZipFile(path) as archive:
                archive.extractall(draft)
        except zipfile.BadZipFile as error:
            msg = f"{path} is no zip file, or a damaged one ({error})."
            raise ValueError(msg) from error
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target
