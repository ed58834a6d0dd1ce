"""A simulated tissue that keeps the causes of everything it shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._validate import check_choice, check_genes, describe_options

from ._cells import draw_features
from ._config import CHANNELS, MARKER_CHANNEL, NUCLEUS_CHANNEL
from ._fov import FieldOfView

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from anndata import AnnData

    from ._config import TissueConfig


@dataclass(frozen=True, eq=False)
class Tissue:
    """Two slides of simulated tissue, and the truth about them.

    Images, labels and transcripts are drawn when they are asked for, from ``causes``, ``latent`` and the seed alone: the same
    tissue always shows the same, in any order and in any process.

    Attributes
    ----------
    config
        The settings.
    genes
        One gene a row: see :func:`simulate_tissue`.
    causes
        One cell a row, both slides: see :func:`simulate_tissue`.
    latent
        n x p: log expression of each cell before depth, ambient and counting noise.
    edits
        What was done to the tissue by :meth:`counterfactual`, oldest first.
    """

    config: TissueConfig
    genes: pd.DataFrame
    causes: pd.DataFrame
    latent: np.ndarray
    edits: tuple[str, ...] = ()

    def __repr__(self) -> str:
        c = self.config
        done = "".join(f"\n    edited: {e}" for e in self.edits)
        return (
            f"Tissue: {' and '.join(c.groups)}, {c.n_cells} cells each in {c.fovs} fields of view of {c.side} x {c.side} px "
            f"({c.pixel_size} um/px), {len(self.genes)} genes, seed {c.seed}{done}"
        )

    def draw(
        self,
        group: str,
        fov: int,
        *,
        channels: Sequence[str] = CHANNELS,
        noise: bool = True,
        transcripts: bool = True,
    ) -> FieldOfView:
        """Draw one field of view.

        Parameters
        ----------
        group
            The slide.
        fov
            Number of the field of view, from 1.
        channels
            Stains to draw.
        noise
            Shot noise and camera noise; without, images are float32 and what the camera would see on average.
        transcripts
            Place the transcripts too.
        """
        from ._draw import draw_fov
        from ._transcripts import draw_transcripts

        slide = self._slide(group)
        for channel in channels:
            check_choice("channel", channel, CHANNELS)
        rows = self._rows(group, fov)
        causes = self.causes.iloc[rows]
        images, owner, nucleus, border = draw_fov(self.config, causes, slide, fov, channels, noise=noise)
        compartments = np.where(owner > 0, 3, 0).astype(np.uint8)
        compartments[(owner > 0) & (border * self.config.pixel_size < 0.6)] = 2
        compartments[nucleus > 0] = 1
        found: dict[str, np.ndarray] = {}
        if transcripts:
            found = draw_transcripts(self.config, self.genes, causes, self.latent[rows], slide, fov, owner)
        return FieldOfView(causes, tuple(channels), images, owner, compartments, found)

    def render(
        self,
        cells: Iterable[str] | None = None,
        *,
        size: int = 64,
        output_size: int | None = None,
        channels: Sequence[str] = (MARKER_CHANNEL, NUCLEUS_CHANNEL),
        noise: bool = True,
    ) -> np.ndarray:
        """Draw the windows of some cells: n x c x size x size (resized to ``output_size``), uint16 (float32 without noise).

        The cells of another tissue made by :meth:`counterfactual` have the same names, so
        ``tissue.counterfactual(...).render(cells)`` shows exactly these cells as they would be, with the same noise.

        Parameters
        ----------
        cells
            Names (index of ``causes``); ``None``: all.
        size
            Side of a window in px: ``[floor(x) - size // 2, floor(x) - size // 2 + size)``. What lies outside the field of view
            is 0.
        output_size
            Resize (bicubic, antialiased).
        channels
            Stains.
        noise
            As for :meth:`draw`.
        """
        from sst.io.crops import cut_windows, window_corners

        at = self._positions(cells)
        side = output_size or size
        out = np.empty((len(at), len(channels), side, side), np.uint16 if noise else np.float32)
        table = self.causes.iloc[at]
        for (group, fov), where in table.groupby(["group", "fov"], sort=False, observed=True).indices.items():
            view = self.draw(str(group), int(fov), channels=channels, noise=noise, transcripts=False)
            corners = window_corners(table.iloc[where][["x", "y"]].to_numpy(), size)
            out[where] = cut_windows(view.images, corners, size, side)
        return out

    def counterfactual(self, genes: str | Iterable[str] | None, source: str, target: str) -> Tissue:
        """The same tissue, had the cells of ``source`` expressed some genes as the cells of ``target`` do.

        Each gene's latent log expression is carried to the target's distribution by its quantiles (a cell keeps its rank); what
        the genes cause is drawn again from it. Everything else stays: positions, shapes, depth, neighbours, all noise.

        Parameters
        ----------
        genes
            Names; ``None``: all.
        source, target
            The slides; the cells of ``target`` are left as they are.
        """
        names = list(self.genes.index) if genes is None else check_genes(list(self.genes.index), genes)
        self._slide(source), self._slide(target)
        mine = (self.causes["group"] == source).to_numpy()
        other = (self.causes["group"] == target).to_numpy()
        latent = self.latent.copy()
        for name in names:
            g = self.genes.index.get_loc(name)
            latent[mine, g] = _carry(self.latent[mine, g], self.latent[other, g])
        causes = self.causes.copy()
        fresh = draw_features(self.config, self.genes, latent, causes)
        causes[fresh.columns] = fresh
        for name in self.genes.index[self.genes["causes"] != ""]:
            causes[f"latent_{name}"] = latent[:, self.genes.index.get_loc(name)]
        shown = "all genes" if genes is None else ", ".join(names)
        return replace(self, latent=latent, causes=causes, edits=(*self.edits, f"{shown}: {source} -> {target}"))

    def true_effect(
        self, genes: str | Iterable[str] | None, source: str, target: str, *, size: int = 64
    ) -> pd.DataFrame:
        """What an edit truly does to the cells of ``source``: the mean of each feature before and after.

        Parameters
        ----------
        genes
            Genes whose latent expression is carried to the distribution of ``target``; ``None``: all.
        source, target
            The slides.
        size
            Side of the window in which the marker's intensity is averaged, px.

        Returns
        -------
        One row a feature: ``marker`` (mean CD298/B2M intensity of the windows that lie inside their field of view, grey levels, no
        noise, brightness and offset included), ``nucleus_area`` (um2), ``marker_level`` and ``texture`` (as drawn). Columns:
        ``source``, ``edited``, ``target`` (means), ``change`` (edited - source), ``gap`` (target - source), ``share`` (change / gap).
        """
        from ._effect import true_effect

        return true_effect(self, genes, source, target, size=size)

    def to_adata(
        self,
        size: int = 64,
        output_size: int = 32,
        channels: Sequence[str] = (MARKER_CHANNEL, NUCLEUS_CHANNEL),
        *,
        border: int = 0,
        min_qv: float = 0.0,
    ) -> AnnData:
        """Paired cells of both slides, as writing, reading and cropping would give them.

        Parameters
        ----------
        size
            Side of the window, px: ``[floor(x) - size // 2, floor(x) - size // 2 + size)``.
        output_size
            Side of the image that the window is resized to (bicubic, antialiased).
        channels
            Stains.
        border
            Leave out cells whose window comes nearer than this to an edge of the field of view, px.
        min_qv
            Leave out transcripts of less quality (CosMx files have none; Xenium readers take 20).

        Returns
        -------
        Cells whose window lies inside their field of view, both slides. ``X`` (CSR, float32): transcripts of each gene inside the
        window, neighbours' and ambient ones included; ``layers["segmented"]``: those on the cell's own mask; ``obsm["crops"]`` (n x
        c x output_size x output_size, uint16); ``obsm["spatial_px"]``, ``obsm["spatial"]`` (um on the slide); ``obs``: ``condition``,
        ``sample``, ``fov``, ``cell_id``, ``cellType`` and the truth: ``true_nucleus_area`` (um2), ``true_marker``, ``true_texture``,
        ``true_depth``, ``true_elongation``, ``true_log_<causal gene>``; ``var``: the gene table; ``uns["crops"]``.
        """
        from ._adata import to_adata

        return to_adata(self, size=size, output_size=output_size, channels=channels, border=border, min_qv=min_qv)

    def write_cosmx(
        self,
        folder: str | Path,
        *,
        layout: str = "flat",
        y_up: bool | None = None,
        positions: str = "both",
        channel_names: bool = True,
        compression: str | None = None,
        zipped: bool = False,
    ) -> list[Path]:
        """Write both slides as the vendor of CosMx would.

        Parameters
        ----------
        folder
            Where; one folder a slide is made in it, named after the slide.
        layout
            ``"flat"`` (releases of 2021-22: ``*_exprMat_file.csv`` and its siblings, ``Morphology2D``, ``CellLabels``), ``"atomx"``
            (exports of AtoMx: ``.csv.gz``, ``FOV``, names of cells, ``CellStatsDir``) or ``"release"`` (the public liver release:
            pictures alone in each slide's folder, and one TileDB-SOMA group of the old format for both, ``LiverDataReleaseTileDB``).
        y_up
            Local y runs upward; ``None``: as that layout usually has it (flat and release up, AtoMx down).
        positions
            Units of the positions file: ``"px"``, ``"mm"`` (columns ``Slide``, ``X_mm``, ``Y_mm``) or ``"both"``.
        channel_names
            Name the stains in the pictures; some exports do not.
        compression
            Of the pictures (``"zlib"``, ``"lzw"`` ...); ``None``: none.
        zipped
            With ``"release"``: pictures in one zip a slide, as they are downloaded.

        Returns
        -------
        The slides' folders (zips), in the order of ``config.groups``. The truth lies beside them: ``truth.parquet`` (the causes),
        ``truth_genes.csv``, ``truth.json``.
        """
        from sst.datasets.simulator.write_cosmx import write_cosmx

        return write_cosmx(
            self,
            folder,
            layout=layout,
            y_up=y_up,
            positions=positions,
            channel_names=channel_names,
            compression=compression,
            zipped=zipped,
        )

    def write_xenium(
        self,
        folder: str | Path,
        *,
        version: str = "1.3.0",
        stains: Sequence[str] = (NUCLEUS_CHANNEL,),
        min_qv: float = 20.0,
        compression: str | None = "zlib",
    ) -> list[Path]:
        """Write both slides as Xenium bundles: each slide one picture, its fields of view side by side.

        Parameters
        ----------
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
        The bundles, in the order of ``config.groups``: ``experiment.xenium``, ``cells.parquet``, ``cell_boundaries.parquet``,
        ``nucleus_boundaries.parquet``, ``transcripts.parquet``, ``cell_feature_matrix.h5``, ``cells.zarr.zip``, pictures, and the
        types of cells as ``analysis/clustering/gene_expression_kmeans_2_clusters/clusters.csv``. The truth lies beside them (its column
        ``cell_id`` has the bundles' names of the cells).
        """
        from sst.datasets.simulator.write_xenium import write_xenium

        return write_xenium(self, folder, version=version, stains=stains, min_qv=min_qv, compression=compression)

    def _slide(self, group: str) -> int:
        if group not in self.config.groups:
            msg = f"group {group!r} is not a slide of this tissue. {describe_options(self.config.groups, group)}"
            raise KeyError(msg)
        return self.config.groups.index(group)

    def _rows(self, group: str, fov: int) -> np.ndarray:
        slide = self._slide(group)
        if not 1 <= fov <= self.config.fovs:
            msg = f"fov={fov} is not in slide {group!r}: it has 1 to {self.config.fovs}."
            raise KeyError(msg)
        start = slide * self.config.n_cells
        numbers = self.causes["fov"].to_numpy()[start : start + self.config.n_cells]
        return start + np.flatnonzero(numbers == fov)

    def _positions(self, cells: Iterable[str] | None) -> np.ndarray:
        if cells is None:
            return np.arange(len(self.causes))
        names = [cells] if isinstance(cells, str) else list(cells)
        at = self.causes.index.get_indexer(pd.Index(names))
        if (at < 0).any():
            unknown = names[int(np.argmax(at < 0))]
            msg = f"cells: {unknown!r} is not a cell of this tissue. {describe_options(self.causes.index, unknown)}"
            raise KeyError(msg)
        return at


def _carry(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``values`` moved to the distribution of ``reference``, ranks kept."""
    rank = np.empty(len(values))
    rank[np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
    return np.quantile(reference, rank)
