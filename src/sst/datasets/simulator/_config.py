"""Settings of the tissue simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sst._validate import check_range, describe_options

if TYPE_CHECKING:
    from collections.abc import Mapping

CHANNELS = ("rRNA", "PanCK", "CD298/B2M", "CD45", "DAPI")
"""Biological targets of the five pages, in the order B, G, Y, R, U."""
FLUOROPHORES = ("B", "G", "Y", "R", "U")
MARKER_CHANNEL = "CD298/B2M"
NUCLEUS_CHANNEL = "DAPI"


@dataclass(frozen=True, kw_only=True)
class TissueConfig:
    """Everything that decides how a tissue looks; lengths are in um, intensities in grey levels of the raw image.

    Attributes
    ----------
    n_cells
        Cells of each slide.
    n_genes
        Genes of the panel (at least 16).
    groups
        Names of the two slides: the first has the lower marker and the smaller nuclei.
    fovs
        Fields of view of each slide, on a grid.
    fov_size
        Side of a field of view in pixels; 0: as large as ``spacing`` asks for.
    pixel_size
        um per pixel.
    brightness
        Factor on all signal of a slide (a confound that no gene explains); slides not named have 1.
    seed
        The whole tissue depends on it and on nothing else.
    spacing
        Square root of the area per cell.
    nucleus_area
        Median area of a nucleus in the first group, um2.
    marker
        Median marker level of a membrane in the first group.
    dapi
        Median DAPI level of a nucleus.
    depth_sd
        SD of the log of a cell's sequencing depth.
    dispersion
        Overdispersion of the negative binomial: variance = mean + dispersion * mean^2.
    ambient
        Share of transcripts that belong to no cell and lie anywhere in the field of view.
    neighbourhood
        Share of each programme's variance that neighbouring cells have in common.
    blur
        Standard deviation of the microscope's point spread function.
    gain
        Grey levels per photon: the variance of shot noise is ``gain`` x signal.
    read_noise
        SD of the camera's noise.
    offset
        Camera offset plus autofluorescence.
    """

    n_cells: int = 6000
    n_genes: int = 60
    groups: tuple[str, str] = ("normal", "tumor")
    fovs: int = 12
    fov_size: int = 0
    pixel_size: float = 0.3
    brightness: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    spacing: float = 16.5
    nucleus_area: float = 25.0
    marker: float = 420.0
    dapi: float = 900.0
    depth_sd: float = 0.1
    dispersion: float = 0.01
    ambient: float = 0.05
    neighbourhood: float = 0.5
    blur: float = 0.2
    gain: float = 3.0
    read_noise: float = 5.0
    offset: float = 22.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(str(g) for g in self.groups))
        object.__setattr__(self, "brightness", {str(k): float(v) for k, v in self.brightness.items()})
        if len(self.groups) != 2 or self.groups[0] == self.groups[1]:
            msg = f"groups={self.groups!r}: name two different slides."
            raise ValueError(msg)
        for name, low in (("n_cells", 1), ("n_genes", 16), ("fovs", 1), ("fov_size", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                msg = f"{name}={value!r} must be a whole number."
                raise TypeError(msg)
            check_range(name, value, low=low)
        for name in ("pixel_size", "spacing", "nucleus_area", "marker", "dapi", "gain"):
            check_range(name, getattr(self, name), low=0, open_low=True)
        for name in ("depth_sd", "dispersion", "blur", "read_noise", "offset"):
            check_range(name, getattr(self, name), low=0)
        check_range("ambient", self.ambient, low=0, high=0.9)
        check_range("neighbourhood", self.neighbourhood, low=0, high=1)
        for group, factor in self.brightness.items():
            if group not in self.groups:
                msg = f"brightness: {group!r} is not a slide. {describe_options(self.groups, group)}"
                raise KeyError(msg)
            check_range(f"brightness[{group!r}]", factor, low=0, open_low=True)
        if self.n_cells < self.fovs:
            msg = f"n_cells={self.n_cells} cannot fill fovs={self.fovs}: at least one cell a field of view."
            raise ValueError(msg)

    @property
    def side(self) -> int:
        """Side of a field of view in pixels."""
        if self.fov_size:
            return self.fov_size
        return max(round((self.n_cells / self.fovs) ** 0.5 * self.spacing / self.pixel_size), 64)

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of the grid of fields of view."""
        columns = max(int(self.fovs**0.5 + 0.999999), 1)
        return columns, -(-self.fovs // columns)
