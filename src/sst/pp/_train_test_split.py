"""Hold out whole fields of view, tiles or samples, and keep the two parts from overlapping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sst._keys import CONDITION, CROPS, FOV, SAMPLE, SPATIAL, SPATIAL_PX, SPLIT, TILE, write_params, write_slot
from sst._settings import logger, settings
from sst._validate import check_choice, check_key, check_range

if TYPE_CHECKING:
    from anndata import AnnData

TRAIN, VAL, TEST, DROPPED = "train", "val", "test", "dropped"


def train_test_split(
    adata: AnnData,
    by: Literal["fov", "tile", "sample"] = "fov",
    *,
    test_size: float = 0.2,
    val_size: float = 0.0,
    seed: int | None = None,
    tile_size: int = 2048,
    size: int | None = None,
    key_added: str = SPLIT,
    copy: bool = False,
) -> AnnData | None:
    """Split cells into training and test by whole regions.

    Regions are drawn at random within every sample (``by="sample"``: samples are drawn) until their share of the cells is as near to
    ``test_size`` as it gets. Training cells whose window shares pixels with a test cell's window are then marked
    ``"dropped"``: windows are compared in pixels within one field of view, and by ``obsm["spatial"]`` within one sample.

    Parameters
    ----------
    adata
        Paired cells.
    by
        ``"fov"``, ``"sample"`` (columns of ``obs``; slides joined under one name are told apart by ``obs["condition"]``), or ``"tile"``: squares of ``tile_size`` px of the image.
    test_size
        Share of cells to hold out, in (0, 1).
    val_size
        Share of cells to hold out besides, as ``"val"``: trainings then watch, choose and stop by these, so that what is reported of the
        test cells was never chosen by.
    seed
        Seed of the draw.
    tile_size
        Edge of a tile in px of the image.
    size
        Edge of the windows in px; by default ``uns["crops"]["size"]``.
    key_added
        Column to write.
    copy
        Return a changed copy.

    Returns
    -------
    ``None``, or the copy. Writes

    ``obs[key_added]``
        categories ``"train"``, ``"val"`` (with ``val_size``), ``"test"``, ``"dropped"``.
    ``obs["tile"]``
        with ``by="tile"``.
    ``uns[key_added]["params"]``, ``["report"]``
        the settings, and how many cells and regions are where.

    Raises
    ------
    ValueError
        There are fewer than two regions to divide.
    """
    check_choice("by", by, ("fov", "tile", "sample"))
    check_range("test_size", test_size, low=0, high=1, open_low=True)
    check_range("val_size", val_size, low=0, high=1 - test_size)
    adata = adata.copy() if copy else adata
    seed = settings.seed if seed is None else seed
    n = adata.n_obs
    sample = _slides(adata)
    fov = adata.obs[FOV].astype(str).to_numpy() if FOV in adata.obs else np.full(n, "")
    if by == "tile":
        px = np.asarray(check_key(adata, "obsm", SPATIAL_PX))
        tile = np.floor(px / tile_size).astype(int)
        name = [f"{f}_x{x}_y{y}" for f, (x, y) in zip(fov, tile, strict=True)]
        write_slot(adata, "obs", TILE, pd.Categorical(name))
        region = np.array(name)
    elif by == "fov":
        region = check_key(adata, "obs", FOV, name="by").astype(str).to_numpy()
    else:
        check_key(adata, "obs", SAMPLE, name="by")
        region = sample
    stratum = np.full(n, "") if by == "sample" else sample
    rng = np.random.default_rng(seed)
    test, val = _draw(stratum, region, test_size, rng), np.zeros(n, bool)
    if val_size:
        rest = ~test
        val[rest] = _draw(stratum[rest], region[rest], val_size / (1 - test_size), rng)
    if not test.any() or test.all():
        count = pd.MultiIndex.from_arrays([stratum, region]).nunique()
        msg = f"by={by!r} finds {count} region(s): too few to hold some out. Try by='tile' or a smaller tile_size."
        raise ValueError(msg)
    if size is None:
        size = adata.uns.get(CROPS, {}).get("size")
    dropped = np.zeros(n, bool)
    if size is not None:
        dropped = _overlap(adata, sample, fov, test | val, int(size))
        dropped |= val & _overlap(adata, sample, fov, test, int(size)) if val_size else False
    if size is None:
        logger.warning("the windows' size is not known (uns['crops']['size']): overlaps were not looked for")
    values = np.where(test, TEST, np.where(dropped, DROPPED, np.where(val, VAL, TRAIN)))
    parts = [TRAIN, VAL, TEST, DROPPED] if val_size else [TRAIN, TEST, DROPPED]
    write_slot(adata, "obs", key_added, pd.Categorical(values, categories=parts))
    report: dict[str, Any] = {name: int((values == name).sum()) for name in parts}
    if not report[TRAIN]:
        logger.warning("every training cell overlaps a test cell: use larger regions")
    report["test_regions"] = sorted({f"{s}:{r}" if s else r for s, r in zip(stratum[test], region[test], strict=True)})
    params = {"by": by, "test_size": test_size, "val_size": val_size, "seed": seed, "size": size}
    write_params(adata, key_added, {**params, "tile_size": tile_size} if by == "tile" else params, report=report)
    logger.info("%s", ", ".join(f"{report[name]} {name}" for name in parts))
    return adata if copy else None


def _slides(adata: AnnData) -> np.ndarray:
    """Name of each cell's slide: its sample; with its condition where one name stands for several slides.

    That is so if the same cell of the same field of view occurs twice in a sample.
    """
    sample = adata.obs[SAMPLE].astype(str).to_numpy() if SAMPLE in adata.obs else np.full(adata.n_obs, "")
    if CONDITION in adata.obs and "cell_id" in adata.obs:
        keys = pd.DataFrame({"s": sample, "c": adata.obs["cell_id"].astype(str).to_numpy()})
        if FOV in adata.obs:
            keys["f"] = adata.obs[FOV].astype(str).to_numpy()
        if keys.duplicated().any():
            condition = adata.obs[CONDITION].astype(str)
            return np.array([f"{s}-{c}" if s else c for s, c in zip(sample, condition, strict=True)])
    return sample


def _draw(stratum: np.ndarray, region: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which cells are held out: in every stratum, regions in random order while the share of cells comes nearer."""
    test = np.zeros(len(region), bool)
    for s in np.unique(stratum):
        here = np.flatnonzero(stratum == s)
        names, owner, count = np.unique(region[here], return_inverse=True, return_counts=True)
        if len(names) < 2:
            continue
        goal, held = share * len(here), 0
        chosen = np.zeros(len(names), bool)
        for r in rng.permutation(len(names)):
            if chosen.sum() < len(names) - 1 and (abs(held + count[r] - goal) < abs(held - goal) or not chosen.any()):
                chosen[r] = True
                held += count[r]
        test[here] = chosen[owner]
    return test


def _overlap(adata: AnnData, sample: np.ndarray, fov: np.ndarray, test: np.ndarray, size: int) -> np.ndarray:
    """Training cells whose window shares area with a test cell's window."""
    found = np.zeros(adata.n_obs, bool)
    px = np.asarray(adata.obsm[SPATIAL_PX], dtype=np.float64) if SPATIAL_PX in adata.obsm else None
    if px is not None:
        corner = np.floor(px)  # two windows overlap when their corners are less than `size` apart in x and in y
        frames = pd.MultiIndex.from_arrays([sample, fov]).factorize()[0]
        found |= _near(corner, frames, test, size)
    if SPATIAL in adata.obsm:
        world = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)[:, :2]
        edge = adata.uns.get(CROPS, {}).get("size_global")
        if edge is None and px is not None:
            edge = size * _scale(world, px, pd.MultiIndex.from_arrays([sample, fov]).factorize()[0])
        if edge:
            slides = pd.factorize(sample)[0]
            found |= _near(world, slides, test, float(edge))
    return found


def _near(points: np.ndarray, owner: np.ndarray, test: np.ndarray, reach: float) -> np.ndarray:
    from scipy.spatial import cKDTree

    found = np.zeros(len(points), bool)
    for o in np.unique(owner[test]):
        held = np.flatnonzero((owner == o) & test)
        train = np.flatnonzero((owner == o) & ~test)
        if len(train):
            away, _ = cKDTree(points[held]).query(points[train], p=np.inf, distance_upper_bound=reach)
            found[train] = away < reach
    return found


def _scale(world: np.ndarray, px: np.ndarray, frames: np.ndarray) -> float:
    """Units of the coordinate system per px, from the spread of the cells of the largest frame."""
    largest = frames == np.bincount(frames).argmax()
    spread = px[largest].std()
    return float(world[largest].std() / spread) if spread > 0 else 0.0
