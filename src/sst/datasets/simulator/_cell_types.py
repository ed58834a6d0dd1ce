"""Cell types of a tissue of full detail: how often, where, and how they look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._config import TissueConfig


@dataclass(frozen=True, kw_only=True)
class CellType:
    """One type; factors are of the settings, ``elongation`` and ``bend`` (of the nucleus's axis) as they are.

    ``orderly`` is how far its axes follow the tissue's (0 to 1), ``stretch`` the power of the elongation that the body takes.
    """

    share: float
    area: float
    elongation: float
    dapi: float
    texture: float
    marker: float
    radius: float
    bend: float = 0.0
    orderly: float = 0.0
    stretch: float = 0.18


TYPES = {
    "epithelial": CellType(share=0.56, area=1.0, elongation=1.35, dapi=0.75, texture=1.0, marker=1.0, radius=1.15),
    "fibroblast": CellType(
        share=0.17, area=0.75, elongation=2.6, dapi=0.6, texture=0.8, marker=0.45, radius=1.0, bend=0.2, orderly=0.85, stretch=0.4
    ),
    "immune": CellType(share=0.2, area=0.62, elongation=1.2, dapi=1.5, texture=1.5, marker=1.3, radius=0.8),
    "endothelial": CellType(
        share=0.07, area=0.6, elongation=2.1, dapi=1.0, texture=1.0, marker=0.9, radius=0.9, bend=0.25, orderly=0.6, stretch=0.3
    ),
}  # fmt: skip


def smooth_field(where: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field of unit variance at places (n x 2, um), with features of about ``length`` um."""
    waves = rng.normal(0, 2 * np.pi / length, (2, 32))
    return np.cos(where @ waves + rng.uniform(0, 2 * np.pi, 32)).sum(1) / 4.0


def place_types(where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The type of each cell: nests of epithelium in strands of stroma with infiltrates; shares vary from slide to slide."""
    names = list(TYPES)
    share = np.array([kind.share for kind in TYPES.values()])
    score = np.empty((len(where), len(names)))
    for k in range(len(names)):
        # The largest of Gumbel scores is a draw with these shares; the smooth part makes it a map.
        score[:, k] = np.log(share[k]) + 0.15 * rng.normal() + 1.1 * smooth_field(where, 130.0, rng)
        score[:, k] -= 0.7 * np.log(-np.log(rng.uniform(1e-12, 1, len(where))))
    return np.array(names)[score.argmax(axis=1)]


def type_columns(
    config: TissueConfig, kinds: np.ndarray, where: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What the types set of each cell."""
    code = np.array([list(TYPES).index(kind) for kind in kinds])

    def get(field: str) -> np.ndarray:
        return np.array([getattr(kind, field) for kind in TYPES.values()])[code]

    n = len(kinds)
    flow = np.pi * smooth_field(where, 260.0, rng)
    order = get("orderly")
    return {
        "type_marker": get("marker"),
        "type_nucleus_area": get("area"),
        "type_texture": get("texture"),
        "type_elongation": get("elongation"),
        "angle": np.where(rng.random(n) < order, flow + rng.normal(0, 0.25, n), rng.uniform(0, np.pi, n)) % np.pi,
        "bend": get("bend") * rng.normal(0, 1, n).clip(-1.5, 1.5),
        "stretch": get("stretch"),
        "dapi": config.dapi * get("dapi") * np.exp(rng.normal(0, 0.38, n)),
        "radius": (get("radius") * rng.normal(0.64, 0.06, n)).clip(0.4, 1.0) * config.spacing,
    }
