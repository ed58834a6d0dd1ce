"""The slides of a simulated tissue: their causes, and what the microscope makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._validate import check_choice, check_genes, describe_options

from ._config import CHANNELS, MARKER_CHANNEL, NUCLEUS_CHANNEL
from ._draw import draw_fov
from ._features import draw_features
from ._fov import FieldOfView
from ._slide_effects import slide_effects
from ._transcripts import draw_transcripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from ._config import TissueConfig


@dataclass(frozen=True, eq=False)
class Slides:
    """What :class:`sst.datasets.Tissue` keeps and draws; the ways out (files, tables, the truth of an edit) take this.

    Attributes
    ----------
    config
        The settings.
    genes
        One gene a row: see :func:`simulate_tissue`.
    causes
        One cell a row, slide by slide: see :func:`simulate_tissue`.
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
            f"{type(self).__name__}: {' and '.join(c.slides)}, {c.n_cells} cells each in {c.fovs} fields of view of {c.side} x {c.side} px "
            f"({c.pixel_size} um/px), {len(self.genes)} genes, seed {c.seed}{done}"
        )

    @property
    def slides(self) -> pd.DataFrame:
        """One slide a row: ``group``, ``donor`` and the factors ``brightness``, ``blur``, ``depth``, ``background`` that are its own."""
        return slide_effects(self.config)

    def gene_sets(self) -> dict[str, list[str]]:
        """The genes of each feature, by its name, and the controls: ``"programme"``, ``"hidden"``, ``"type"``, ``"unrelated"``.

        Controls cause nothing: genes of the causal genes' programmes, genes driven by the hidden cause, genes of a cell type, others.
        """
        sets = {
            str(f): list(part.index) for f, part in self.genes[self.genes["causes"] != ""].groupby("causes", sort=False)
        }
        sets |= {str(k): list(part.index) for k, part in self.genes[self.genes["control"] != ""].groupby("control")}
        return sets

    def draw(
        self,
        slide: str,
        fov: int,
        *,
        channels: Sequence[str] = CHANNELS,
        noise: bool = True,
        transcripts: bool = True,
    ) -> FieldOfView:
        """Draw one field of view.

        Parameters
        ----------
        slide
            Its name, one of ``config.slides``.
        fov
            Number of the field of view, from 1.
        channels
            Stains to draw.
        noise
            Shot noise and camera noise; without, images are float32 and what the camera would see on average.
        transcripts
            Place the transcripts too.
        """
        number = self.slide_of(slide)
        for channel in channels:
            check_choice("channel", channel, CHANNELS)
        rows = self.rows(slide, fov)
        causes = self.causes.iloc[rows]
        images, owner, nucleus, border = draw_fov(self.config, causes, number, fov, channels, noise=noise)
        compartments = np.where(owner > 0, 3, 0).astype(np.uint8)
        compartments[(owner > 0) & (border * self.config.pixel_size < 0.6)] = 2
        compartments[nucleus > 0] = 1
        found: dict[str, np.ndarray] = {}
        if transcripts:
            found = draw_transcripts(self.config, self.genes, causes, self.latent[rows], number, fov, owner)
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
        for (slide, fov), where in table.groupby(["donor", "fov"], sort=False, observed=True).indices.items():
            view = self.draw(str(slide), int(fov), channels=channels, noise=noise, transcripts=False)
            corners = window_corners(table.iloc[where][["x", "y"]].to_numpy(), size)
            out[where] = cut_windows(view.images, corners, size, side)
        return out

    def counterfactual(self, genes: str | Iterable[str] | None, source: str, target: str) -> Self:
        """The same tissue, had the cells of ``source`` expressed some genes as the cells of ``target`` do.

        Each gene's latent log expression is carried to the target's distribution by its quantiles (a cell keeps its rank); what
        the genes cause is drawn again from it. Everything else stays: positions, shapes, depth, neighbours, all noise.

        Parameters
        ----------
        genes
            Names; ``None``: all.
        source, target
            Groups, or slides; the cells of ``target`` are left as they are.
        """
        names = list(self.genes.index) if genes is None else check_genes(list(self.genes.index), genes)
        mine, other = self.members(source), self.members(target)
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

    def slide_of(self, slide: str) -> int:
        """Number of a slide."""
        return self.config.slides.index(self._known("slide", slide, self.config.slides))

    def members(self, name: str) -> np.ndarray:
        """Which cells are of a group (or a slide), n."""
        self._known(
            "group", name, (*self.config.groups, *(s for s in self.config.slides if s not in self.config.groups))
        )
        return (self.causes["group" if name in self.config.groups else "donor"] == name).to_numpy()

    def rows(self, slide: str, fov: int) -> np.ndarray:
        """Rows of ``causes`` of a field of view."""
        number = self.slide_of(slide)
        if not 1 <= fov <= self.config.fovs:
            msg = f"fov={fov} is not in slide {slide!r}: it has 1 to {self.config.fovs}."
            raise KeyError(msg)
        start = number * self.config.n_cells
        numbers = self.causes["fov"].to_numpy()[start : start + self.config.n_cells]
        return start + np.flatnonzero(numbers == fov)

    @staticmethod
    def _known(what: str, name: str, possible: Sequence[str]) -> str:
        if name not in possible:
            msg = f"{what} {name!r} is not in this tissue. {describe_options(possible, name)}"
            raise KeyError(msg)
        return name

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
