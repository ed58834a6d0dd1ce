"""What sets the slides of a tissue apart, whatever lies on them: brightness, blur, depth, background, the donors' own levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from ._config import TissueConfig

NAMES = ("brightness", "blur", "depth", "background")


def slide_effects(config: TissueConfig) -> pd.DataFrame:
    """One slide a row: ``group``, ``donor`` (1 .. of its group) and the factors ``brightness``, ``blur``, ``depth``, ``background``."""
    rows = []
    last = len(config.groups) - 1
    for slide in range(len(config.slides)):
        g, k = divmod(slide, config.donors)
        own = np.random.default_rng([config.seed, slide, 11]).standard_normal(len(NAMES))
        log = own * [getattr(config, f"slide_{name}") for name in NAMES]
        log += config.confounding * (g / last - 0.5) * np.array([1.0, 1.0, -1.0, 1.0])
        factors = dict(zip(NAMES, np.exp(log), strict=True))
        factors["brightness"] *= config.brightness.get(config.groups[g], 1.0)
        rows.append({"group": config.groups[g], "donor": k + 1, **factors})
    return pd.DataFrame(rows, index=pd.Index(config.slides, name="slide"))


def donor_levels(config: TissueConfig, genes: pd.DataFrame, slide: int) -> np.ndarray:
    """What a donor adds to each gene's log expression: half its variance is its programme's, so that programmes differ as a whole."""
    rng = np.random.default_rng([config.seed, slide, 12])
    programmes, code = np.unique(genes["programme"].to_numpy(str), return_inverse=True)
    return config.slide_expression * (
        0.5**0.5 * rng.standard_normal(len(programmes))[code] + 0.5**0.5 * rng.standard_normal(len(genes))
    )
