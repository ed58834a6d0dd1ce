"""How bright slides are beside the other slides of their groups."""

from __future__ import annotations

import numpy as np

from sst._settings import logger


def slide_gains(
    maxima: np.ndarray,
    lows: np.ndarray,
    slides: np.ndarray,
    groups: np.ndarray,
    learn: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    """Factor on each slide's signal that brings it to the mean of the slides of its groups: slides x c.

    The log of a slide's signal (median over its cells of a group of the brightest pixel, less the background) is its group's plus its own.
    Groups and slides are fitted by least squares over the seen slides, of all solutions the one with the least effects of slides: where each slide is
    of one group, these are 0 on average over the group's slides, and what sets the groups apart is kept whole.

    Parameters
    ----------
    maxima
        Brightest pixel of each crop, n x c.
    lows
        Background of each slide, slides x c.
    slides, groups
        Codes of each cell, n.
    learn
        Cells that levels are found on, n booleans.
    seen
        Slides that groups are fitted on, booleans; the others are brought to these groups' levels.
    """
    pairs = np.unique(np.column_stack([slides, groups])[learn], axis=0)
    level = np.full((len(pairs), maxima.shape[1]), np.nan)
    for row, (slide, group) in enumerate(pairs):
        mine = learn & (slides == slide) & (groups == group)
        with np.errstate(divide="ignore", invalid="ignore"):
            level[row] = np.log(np.nanmedian(maxima[mine], axis=0) - lows[slide])
    gains = np.ones_like(lows)
    for c in range(maxima.shape[1]):
        if not np.isfinite(level[:, c]).all():
            logger.warning(
                "channel %d: a slide has no signal above its background; its slides keep their brightness.", c
            )
            continue
        gains[:, c] = np.exp(-_own(level[:, c], pairs, seen))
    return gains


def _own(level: np.ndarray, pairs: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """What each slide adds to the level of its groups."""
    known = seen[pairs[:, 0]]
    fit, y = pairs[known], level[known]
    of_slide = (fit[:, [0]] == np.arange(len(seen))).astype(float)
    of_group = (fit[:, [1]] == np.arange(pairs[:, 1].max() + 1)).astype(float)

    def rest(values: np.ndarray) -> np.ndarray:
        return values - of_group @ np.linalg.lstsq(of_group, values, rcond=None)[0]

    own = np.linalg.lstsq(rest(of_slide), rest(y), rcond=None)[0]
    group = np.linalg.lstsq(of_group, y - of_slide @ own, rcond=None)[0]
    for slide in np.flatnonzero(~seen):
        mine = pairs[:, 0] == slide
        own[slide] = float(np.mean(level[mine] - group[pairs[mine, 1]]))
    return own
