"""Settings of the tissue simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sst._validate import check_choice, check_range, describe_options

if TYPE_CHECKING:
    from collections.abc import Mapping

CHANNELS = ("rRNA", "PanCK", "CD298/B2M", "CD45", "DAPI")
"""Biological targets of the five pages, in the order B, G, Y, R, U."""
FLUOROPHORES = ("B", "G", "Y", "R", "U")
MARKER_CHANNEL = "CD298/B2M"
NUCLEUS_CHANNEL = "DAPI"
_REALISTIC: dict[str, Any] = {
    "n_cells": 2000,
    "n_genes": 300,
    "donors": 3,
    "detail": "full",
    "fovs": 40,
    "nucleus_area": 32.0,
    "counts_per_gene": 0.34,
    "depth_sd": 0.5,
    "dispersion": 0.1,
    "stray": 0.12,
    "stray_distance": 4.0,
    "ambient": 0.08,
    "blur": 0.25,
    "hidden": 0.16,
    "slide_brightness": 0.06,
    "slide_blur": 0.12,
    "slide_depth": 0.12,
    "slide_background": 0.1,
    "slide_expression": 0.1,
}
PRESETS: dict[str, dict[str, Any]] = {
    "easy": {},
    "realistic": _REALISTIC,
    "confounded": {**_REALISTIC, "confounding": 0.35},
}


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
        Names of the groups: the first has the lower marker and the smaller nuclei, the last the higher and the larger.
    donors
        Slides of each group, each of a donor of its own; with one, the slide is named as its group.
    detail
        ``"plain"``: few genes, four of them causal, one type of nucleus. ``"full"``: a panel as a vendor's, nine features with
        causes of their own, cell types, and textures as a microscope shows them (``docs/simulator.md``).
    fovs
        Fields of view of each slide, on a grid.
    fov_size
        Side of a field of view in pixels; 0: as large as ``spacing`` asks for.
    pixel_size
        um per pixel.
    brightness
        Factor on all signal of a group's slides (a confound that no gene explains); groups not named have 1.
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
    counts_per_gene
        Mean over the genes of the expected counts of a cell of depth 1, averaged over the groups; genes that are not named by the
        panel are scaled to it. 0: as they are.
    stray
        Share of a cell's transcripts that are found further out than they were made, and so in its neighbours.
    stray_distance
        How far, um (SD of half a normal).
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
    hidden
        Change of the log of the nuclear area per SD of the hidden cause (the cell cycle), which drives genes that cause nothing.
    slide_brightness, slide_blur, slide_depth, slide_background
        SD over slides of the log of the signal's brightness, of the blur, of the sequencing depth and of the offset.
    slide_expression
        SD over slides of each gene's log expression: the donor's own level, which acts on what the gene causes.
    confounding
        How far brightness, blur and offset (upward) and depth (downward) follow the group: the log of their ratio between the
        slides of the last group and those of the first.
    """

    n_cells: int = 6000
    n_genes: int = 60
    groups: tuple[str, ...] = ("normal", "tumor")
    donors: int = 1
    detail: Literal["plain", "full"] = "plain"
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
    counts_per_gene: float = 0.0
    stray: float = 0.03
    stray_distance: float = 1.2
    ambient: float = 0.05
    neighbourhood: float = 0.5
    blur: float = 0.2
    gain: float = 3.0
    read_noise: float = 5.0
    offset: float = 22.0
    hidden: float = 0.0
    slide_brightness: float = 0.0
    slide_blur: float = 0.0
    slide_depth: float = 0.0
    slide_background: float = 0.0
    slide_expression: float = 0.0
    confounding: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(str(g) for g in self.groups))
        object.__setattr__(self, "brightness", {str(k): float(v) for k, v in self.brightness.items()})
        if len(self.groups) < 2 or len(set(self.groups)) < len(self.groups):
            msg = f"groups={self.groups!r}: name two different groups, or more."
            raise ValueError(msg)
        check_choice("detail", self.detail, ("plain", "full"))
        least = {
            "n_cells": 1,
            "n_genes": 16 if self.detail == "plain" else 80,
            "donors": 1,
            "fovs": 1,
            "fov_size": 0,
            "seed": 0,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                msg = f"{name}={value!r} must be a whole number."
                raise TypeError(msg)
            check_range(name, value, low=low)
        for name in ("pixel_size", "spacing", "nucleus_area", "marker", "dapi", "gain"):
            check_range(name, getattr(self, name), low=0, open_low=True)
        shifts = (
            "slide_brightness",
            "slide_blur",
            "slide_depth",
            "slide_background",
            "slide_expression",
            "counts_per_gene",
        )
        for name in ("depth_sd", "dispersion", "blur", "read_noise", "offset", "stray_distance", *shifts):
            check_range(name, getattr(self, name), low=0)
        for name in ("hidden", "confounding"):
            check_range(name, getattr(self, name), low=-2, high=2)
        check_range("ambient", self.ambient, low=0, high=0.9)
        check_range("stray", self.stray, low=0, high=1)
        check_range("neighbourhood", self.neighbourhood, low=0, high=1)
        for group, factor in self.brightness.items():
            if group not in self.groups:
                msg = f"brightness: {group!r} is not a group. {describe_options(self.groups, group)}"
                raise KeyError(msg)
            check_range(f"brightness[{group!r}]", factor, low=0, open_low=True)
        if self.n_cells < self.fovs:
            msg = f"n_cells={self.n_cells} cannot fill fovs={self.fovs}: at least one cell a field of view."
            raise ValueError(msg)

    @classmethod
    def preset(cls, name: Literal["easy", "realistic", "confounded"] = "easy", **changes: Any) -> TissueConfig:
        """Named settings; ``changes`` are settings that are wanted otherwise.

        ``"easy"``: 60 genes at 14 to 118 counts, one slide a group: for tests and first steps; the defaults.
        ``"realistic"``: 300 genes at half a count a window, three donors a group, cell types, a hidden common cause, effects that
        no scaling of the cell draws.
        ``"confounded"``: the same, and the slides of the groups differ in brightness, blur, background and depth too.

        Raises
        ------
        ValueError
            The preset is not known.
        """
        check_choice("preset", name, tuple(PRESETS))
        return cls(**{**PRESETS[name], **changes})

    @property
    def slides(self) -> tuple[str, ...]:
        """Names of the slides, group by group."""
        if self.donors == 1:
            return self.groups
        return tuple(f"{group}_{k + 1}" for group in self.groups for k in range(self.donors))

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
