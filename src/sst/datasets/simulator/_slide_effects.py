"""What sets the slides of a tissue apart, whatever lies on them: brightness, blur, depth, background, the donors' own levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._config import TissueConfig

NAMES = ("brightness", "blur", "depth", "background")


def slide_effects(config: TissueConfig) -> pd.DataFrame:
    """One slide a row: ``group``, ``donor`` (1 .. of its group) and the factors ``brightness``, ``blur``, ``depth``, ``background``."""
    rows = []
    last = len(config.groups) - 1
    for slide in range(len(config.slides)):
        g, k = divmod(slide, config.donors)
        own = _centred(config, slide, lambda s: np.random.default_rng([config.seed, s, 11]).standard_normal(len(NAMES)))
        log = own * [getattr(config, f"slide_{name}") for name in NAMES]
        log += config.confounding * (g / last - 0.5) * np.array([1.0, 1.0, -1.0, 1.0])
        factors = dict(zip(NAMES, np.exp(log), strict=True))
        factors["brightness"] *= config.brightness.get(config.groups[g], 1.0)
        rows.append({"group": config.groups[g], "donor": k + 1, **factors})
    return pd.DataFrame(rows, index=pd.Index(config.slides, name="slide"))


def donor_levels(config: TissueConfig, genes: pd.DataFrame, slide: int) -> np.ndarray:
    """What a donor adds to each gene's log expression: half its variance is its programme's, so that programmes differ as a whole."""
    programmes, code = np.unique(genes["programme"].to_numpy(str), return_inverse=True)

    def draw(number: int) -> np.ndarray:
        rng = np.random.default_rng([config.seed, number, 12])
        return 0.5**0.5 * rng.standard_normal(len(programmes))[code] + 0.5**0.5 * rng.standard_normal(len(genes))

    return config.slide_expression * _centred(config, slide, draw)


def _centred(config: TissueConfig, slide: int, draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """What ``draw`` gives a slide, less its group's mean, variance kept: donors of a group differ, and no group is set apart by who they happen to be."""
    if config.donors == 1:
        return draw(slide)
    first = slide - slide % config.donors
    mean = np.mean([draw(s) for s in range(first, first + config.donors)], axis=0)
    return (draw(slide) - mean) * (config.donors / (config.donors - 1)) ** 0.5
