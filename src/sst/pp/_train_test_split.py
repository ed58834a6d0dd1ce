"""Hold out whole fields of view, tiles or samples, and keep the two parts from overlapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sst._arguments import checked
from sst._keys import CONDITION, CROPS, DONOR, FOV, SAMPLE, SPATIAL, SPATIAL_PX, SPLIT, TILE, write_params, write_slot
from sst._settings import logger, settings
from sst._validate import check_choice, check_key, check_range

if TYPE_CHECKING:
    from anndata import AnnData

_TILE = 2048  # px
_GOOD = 0.5  # badness of a division that is taken at once
TRAIN, VAL, TEST, DROPPED = "train", "val", "test", "dropped"


@checked
def train_test_split(
    adata: AnnData,
    by: Literal["fov", "tile", "sample", "donor"] = "fov",
    *,
    test_size: float = 0.2,
    val_size: float = 0.0,
    seed: int | None = None,
    tile_size: int | None = None,
    size: int | None = None,
    key_added: str = SPLIT,
    copy: bool = False,
) -> AnnData | None:
    """Split cells into training and test by whole regions.

    Regions are drawn at random within every sample until their share of the cells is as near to ``test_size`` as it gets;
    samples or donors are drawn within every ``obs["condition"]`` that has several of its own. Training cells whose window shares pixels with a test cell's window are then marked
    ``"dropped"``: windows are compared in pixels within one field of view, and by ``obsm["spatial"]`` within one sample.

    Parameters
    ----------
    adata
        Paired cells.
    by
        ``"fov"``, ``"sample"`` (columns of ``obs``; slides joined under one name are told apart by ``obs["condition"]``),
        ``"donor"`` (whole donors, all their slides: what a study of several must show), or ``"tile"``: squares of ``tile_size``
        px of the image.
    test_size
        Share of cells to hold out, in (0, 1).
    val_size
        Share of cells to hold out besides, as ``"val"``: trainings then watch, choose and stop by these, so that what is reported of the
        test cells was never chosen by.
    seed
        Seed of the draw.
    tile_size
        Edge of a tile in px of the image; by default 2048, or less where that is needed to hold out about ``test_size`` of the
        cells and leave at least half for training.
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
        There are fewer than two regions to divide, or no tiles that leave cells to train on.
    """
    check_choice("by", by, ("fov", "tile", "sample", "donor"))
    check_range("test_size", test_size, low=0, high=1, open_low=True)
    check_range("val_size", val_size, low=0, high=1 - test_size)
    adata = adata.copy() if copy else adata
    seed = settings.seed if seed is None else seed
    n = adata.n_obs
    sample = _slides(adata)
    fov = adata.obs[FOV].astype(str).to_numpy() if FOV in adata.obs else np.full(n, "")
    if size is None:
        size = adata.uns.get(CROPS, {}).get("size")
    if size is None:
        logger.warning("the windows' size is not known (uns['crops']['size']): overlaps were not looked for")
    if by == "tile":
        check_key(adata, "obsm", SPATIAL_PX)
        if tile_size is not None:
            check_range("tile_size", tile_size, low=1)
        edges = [tile_size] if tile_size is not None else _edges(size)
    else:
        edges = [0]
        check_key(adata, "obs", {"fov": FOV, "donor": DONOR}.get(by, SAMPLE), name="by")
    whole = {"fov": fov, "sample": sample}.get(by)  # what is held out as a whole, where that is known beforehand
    if by == "donor":
        whole = adata.obs[DONOR].astype(str).to_numpy()
    stratum = _conditions(adata, whole) if by in {"sample", "donor"} and whole is not None else sample
    shares = (test_size, val_size)
    best: _Division | None = None
    for edge in edges:
        region = _tiles(adata, fov, edge) if whole is None else whole
        rng = np.random.default_rng(seed)
        division = _divide(
            adata, edge, region, stratum, (sample, fov), shares, None if size is None else int(size), rng
        )
        if division is not None and (best is None or division.badness(test_size) < best.badness(test_size)):
            best = division
        if best is not None and best.badness(test_size) < _GOOD:
            break
    if best is None or (len(edges) > 1 and TRAIN not in best.values):
        raise ValueError(_advice(by, stratum, region, edges, found=best is not None))
    region, values = best.region, best.values
    if by == "tile":
        tile_size = best.edge
        write_slot(adata, "obs", TILE, pd.Categorical(region))
    parts = [TRAIN, VAL, TEST, DROPPED] if val_size else [TRAIN, TEST, DROPPED]
    write_slot(adata, "obs", key_added, pd.Categorical(values, categories=parts))
    report: dict[str, Any] = {name: int((values == name).sum()) for name in parts}
    if not report[TRAIN]:
        logger.warning("every training cell overlaps a test cell: use larger regions")
    test = values == TEST
    report["test_regions"] = sorted({f"{s}:{r}" if s else r for s, r in zip(stratum[test], region[test], strict=True)})
    params = {"by": by, "test_size": test_size, "val_size": val_size, "seed": seed, "size": size}
    write_params(adata, key_added, {**params, "tile_size": tile_size} if by == "tile" else params, report=report)
    logger.info("%s", ", ".join(f"{report[name]} {name}" for name in parts))
    return adata if copy else None


@dataclass(frozen=True)
class _Division:
    """Each cell's region, and the part that it is in."""

    edge: int
    region: np.ndarray
    values: np.ndarray

    def badness(self, goal: float) -> float:
        """0 where the share held out is the goal; more where it is not, or fewer than half of the cells are left to train on."""
        share = {part: float((self.values == part).mean()) for part in (TRAIN, TEST)}
        return abs(share[TEST] - goal) / goal + max(0.0, 0.5 - share[TRAIN]) * 4


def _divide(
    adata: AnnData,
    edge: int,
    region: np.ndarray,
    stratum: np.ndarray,
    where: tuple[np.ndarray, np.ndarray],
    shares: tuple[float, float],
    size: int | None,
    rng: np.random.Generator,
) -> _Division | None:
    """Hold out regions; ``None`` if there are too few of them."""
    test_size, val_size = shares
    test, val = _draw(stratum, region, test_size, rng), np.zeros(len(region), bool)
    if not test.any() or test.all():
        return None
    if val_size:
        rest = ~test
        val[rest] = _draw(stratum[rest], region[rest], val_size / (1 - test_size), rng)
    dropped = np.zeros(len(region), bool)
    if size is not None:
        dropped = _overlap(adata, *where, test | val, size)
        dropped |= val & _overlap(adata, *where, test, size) if val_size else False
    return _Division(
        edge, region, np.where(test, TEST, np.where(dropped, DROPPED, np.where(val, VAL, TRAIN))).astype(object)
    )


def _edges(size: int | None) -> list[int]:
    """Edges of tiles to try, the largest first, none smaller than a window."""
    least = max(16, 1 if size is None else int(size))
    edges = [_TILE]
    while edges[-1] * 3 // 4 > least:
        edges.append(edges[-1] * 3 // 4)
    return edges


def _tiles(adata: AnnData, fov: np.ndarray, edge: int) -> np.ndarray:
    """Name of each cell's tile."""
    tile = np.floor(np.asarray(adata.obsm[SPATIAL_PX]) / edge).astype(int)
    return np.array([f"{f}_x{x}_y{y}" for f, (x, y) in zip(fov, tile, strict=True)])


def _advice(by: str, stratum: np.ndarray, region: np.ndarray, edges: list[int], *, found: bool) -> str:
    count = pd.MultiIndex.from_arrays([stratum, region]).nunique()
    if by != "tile":
        return f"by={by!r} finds {count} region(s): too few to hold some out. by='tile' divides an image."
    if found:
        return f"tiles of {edges[-1]} px and more leave no cell to train on that shares no pixel with a test cell: the images are too small."
    if len(edges) == 1:
        return f"tile_size={edges[0]} finds {count} tile(s) with cells: too few to hold some out. tile_size=None looks for a size that does."
    return f"no tiles of {edges[-1]} to {edges[0]} px divide the {len(region)} cells: they lie too near to each other."


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


def _conditions(adata: AnnData, region: np.ndarray) -> np.ndarray:
    """Each cell's condition, if no region has cells of two and each has several regions; else one stratum for all."""
    if CONDITION in adata.obs:
        condition = adata.obs[CONDITION].astype(str).to_numpy()
        pairs = pd.DataFrame({"c": condition, "r": region}).drop_duplicates()
        if pairs["r"].is_unique and pairs["c"].value_counts().min() > 1:
            return condition
    return np.full(adata.n_obs, "")


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
            found[train] = away < reach * (1 - 1e-9)  # windows that touch share nothing
    return found


def _scale(world: np.ndarray, px: np.ndarray, frames: np.ndarray) -> float:
    """Units of the coordinate system per px, from the spread of the cells of the largest frame."""
    largest = frames == np.bincount(frames).argmax()
    spread = px[largest].std(axis=0).sum()  # axis by axis: where the frame lies on its slide is no spread
    return float(world[largest].std(axis=0).sum() / spread) if spread > 0 else 0.0
