"""Where the cells of a simulated slide lie, what they express, and what that makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from ._cell_types import place_types, smooth_field, type_columns
from ._draw_full import PLANE_SHARE, PLANES
from ._features import features_of
from ._genes import latent_moments
from ._panel import HIDDEN_SHIFT, type_levels
from ._slide_effects import donor_levels, slide_effects

if TYPE_CHECKING:
    from ._config import TissueConfig


def make_slide(config: TissueConfig, genes: pd.DataFrame, slide: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Causes (one cell a row, without the features of the genes) and latent log expression (cells x genes) of a slide."""
    effects = slide_effects(config).iloc[slide]
    group = str(effects["group"])
    rng = np.random.default_rng([config.seed, slide, 1])
    crowding = rng.normal(1.0, 0.06, config.fovs).clip(0.8, 1.2)
    numbers = np.floor(config.n_cells * crowding / crowding.sum()).astype(int).clip(1)
    numbers[np.argsort(numbers)[: max(config.n_cells - numbers.sum(), 0) % config.fovs]] += 1
    numbers[np.argmax(numbers)] += config.n_cells - numbers.sum()
    points = np.concatenate(
        [_place(config, n, np.random.default_rng([config.seed, slide, 2, f])) for f, n in enumerate(numbers)]
    )
    fov = np.repeat(np.arange(config.fovs), numbers)
    n = config.n_cells
    columns, _ = config.grid
    corner = np.stack([fov % columns, fov // columns], axis=1) * config.side
    where = (corner + points) * config.pixel_size  # n x 2, um on the slide

    extra = _full_columns(config, where, slide) if config.detail == "full" else {}
    latent = _express(config, genes, group, where, rng, extra)
    if config.slide_expression:
        latent = latent + donor_levels(config, genes, slide)
    um = config.pixel_size
    causes = pd.DataFrame(
        {
            "group": group,
            "slide": slide,
            "fov": fov + 1,
            "cell": np.concatenate([np.arange(k) + 1 for k in numbers]),
            "x": points[:, 0],
            "y": points[:, 1],
            "nucleus_x": points[:, 0] + rng.normal(0, 0.25, n) / um,
            "nucleus_y": points[:, 1] + rng.normal(0, 0.25, n) / um,
            "depth": np.exp(rng.normal(0, config.depth_sd, n) - config.depth_sd**2 / 2) * effects["depth"],
        }
    )
    for name, feature in features_of(config).items():
        causes[f"{name}_noise"] = rng.normal(0, feature.noise, n)
    causes["elongation"] = (1.05 + rng.gamma(2.0, 0.2, n)).clip(1.0, 2.3)
    causes["angle"] = rng.uniform(0, np.pi, n)
    for k, sd in ((2, 0.05), (3, 0.05), (4, 0.03)):  # harmonics of the outline
        causes[f"shape_{k}"] = rng.normal(0, sd, n).clip(-0.15, 0.15)
        causes[f"phase_{k}"] = rng.uniform(0, 2 * np.pi, n)
    causes["focus"] = 0.18 + rng.gamma(2.0, 0.11, n)  # um, softness of the nucleus's edge
    causes["dapi"] = config.dapi * np.exp(rng.normal(0, 0.25, n))
    causes["radius"] = rng.normal(0.64, 0.06, n).clip(0.4, 0.9) * config.spacing
    # The other three stains: what they show is drawn from programmes, so that they look plausible, and sets nothing.
    level = {name: latent[:, members].mean(1) for name, members in _members(genes).items()}
    immune = "immunity" if extra else "immune"
    for name, programme, base in (("rrna", "cycle", 500.0), ("panck", "stress", 380.0), ("cd45", immune, 260.0)):
        own = level[programme]
        causes[name] = base * np.exp(own - own.mean() + rng.normal(0, 0.2, n))
        if extra:  # these two stains belong to types
            of = {"panck": "epithelial", "cd45": "immune"}.get(name)
            causes[name] *= 1.0 if of is None else np.where(extra["cell_type"] == of, 1.0, 0.06)
    if extra:
        causes = causes.drop(columns="elongation").assign(**extra)
    else:
        first, second = _type_names(group)
        causes["cell_type"] = np.where(level["secretion"] > np.quantile(level["secretion"], 0.3), first, second)
    causes.insert(2, "donor", config.slides[slide])
    causes.index = pd.Index(
        [f"c_{slide + 1}_{f}_{c}" for f, c in zip(causes["fov"], causes["cell"], strict=True)], name="cell_name"
    )
    return causes, latent


def _full_columns(config: TissueConfig, where: np.ndarray, slide: int) -> dict[str, np.ndarray]:
    """Type, hidden cause and the rest that only cells of full detail have."""
    rng = np.random.default_rng([config.seed, slide, 13])
    n = len(where)
    kinds = place_types(where, rng)
    shift = HIDDEN_SHIFT * (slide // config.donors) / (len(config.groups) - 1)
    return {
        "cell_type": kinds,
        "hidden": rng.normal(shift, 1.0, n),
        "two_nuclei_draw": rng.random(n),
        **type_columns(config, kinds, where, rng),
        "plane": rng.choice(len(PLANES), n, p=PLANE_SHARE),
        "lobe_number": rng.choice([1, 2, 3], n, p=(0.35, 0.45, 0.2)),
        "lobe_phase": rng.uniform(0, 2 * np.pi, n),
    }


def _type_names(group: str) -> tuple[str, str]:
    return {"normal": ("Hep.1", "Hep.3"), "tumor": ("tumor_1", "tumor_2")}.get(group, (f"{group}_1", f"{group}_2"))


def _members(genes: pd.DataFrame) -> dict[str, np.ndarray]:
    free = genes["causes"].to_numpy(str) == ""
    names = genes["programme"].to_numpy(str)
    return {p: np.flatnonzero(free & (names == p)) for p in np.unique(names) if (free & (names == p)).any()}


def _place(config: TissueConfig, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` points of a field of view (n x 2, x and y in px) that keep apart like the nuclei of a packed tissue."""
    side = float(config.side)
    points = rng.uniform(0, side, (n, 2))
    # Points of this density can keep about 0.9 of the spacing without looking like a lattice; in full detail some nuclei touch.
    apart = (0.9 if config.detail == "plain" else 0.68) * min(config.spacing / config.pixel_size, side / n**0.5)
    for _ in range(60):
        pairs = cKDTree(points).query_pairs(apart, output_type="ndarray")
        if not len(pairs):
            break
        way = points[pairs[:, 0]] - points[pairs[:, 1]]  # pairs x 2
        far = np.sqrt((way**2).sum(1)).clip(1e-3)
        push = way * ((apart - far) / far * 0.55)[:, None]
        for axis in range(2):
            points[:, axis] += np.bincount(pairs[:, 0], push[:, axis], n) - np.bincount(pairs[:, 1], push[:, axis], n)
        points = points.clip(0, side - 1e-3)
    return points


def _express(
    config: TissueConfig,
    genes: pd.DataFrame,
    group: str,
    where: np.ndarray,
    rng: np.random.Generator,
    extra: dict[str, np.ndarray],
) -> np.ndarray:
    """Latent log expression, n x p: the group's mean, plus programmes that neighbours share in part, plus each gene's own.

    With full detail also what the hidden cause and the cell's type (both in ``extra``) add.
    """
    n = len(where)
    programmes, code = np.unique(genes["programme"].to_numpy(str), return_inverse=True)
    factors = np.empty((n, len(programmes)))
    for k in range(len(programmes)):
        smooth = smooth_field(where, 120.0, rng)
        factors[:, k] = (config.neighbourhood**0.5) * smooth + ((1 - config.neighbourhood) ** 0.5) * rng.normal(size=n)
    mean, sd = latent_moments(genes, group)
    loading = genes["loading"].to_numpy(float)
    own = rng.standard_normal((n, len(genes)))
    if not extra:
        return mean + sd * (np.sqrt(loading) * factors[:, code] + np.sqrt(1 - loading) * own)
    share = genes["hidden"].to_numpy(float)
    shift = HIDDEN_SHIFT * config.groups.index(group) / (len(config.groups) - 1)
    driven = np.sqrt(share) * (extra["hidden"] - shift)[:, None]  # the shift is in the group's mean
    rest = np.sqrt(loading) * factors[:, code] + np.sqrt(1 - loading - share) * own
    return mean + sd * (driven + rest) + type_levels(genes, extra["cell_type"])
