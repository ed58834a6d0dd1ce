"""What the demo runs on: simulated slides written in a vendor's layout, or a user's folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sst._settings import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.datasets import Tissue

#: Window in pixels and side of the demo's crops, by vendor; the demo's networks are 32 px.
SIMULATED_SIZE, OUTPUT_SIZE = 64, 32
WINDOWS = {"xenium": 96, "cosmx": 96}
#: Square root of the tissue's area per cell in um: somewhat looser than the simulator's default. Transcripts of crowding
#: neighbours fall into the window, and strongly expressed genes, also such as cause nothing, then tell how many.
SPACING = 17.5
#: Operator of the edits. On the simulator's null genes it moves pictures least; see the documentation of editing.
METHOD = "ot"
#: Both trainings side by side, on two cores; simulating, editing and measuring take as long again at most.
TRAIN_SECONDS = 330.0
FEW = 2000  # cells under which nothing much can be learned


@dataclass(frozen=True)
class DemoInput:
    """Paired cells of two groups, and what is known of them.

    Attributes
    ----------
    adata
        Rescaled and split; ``obs[groupby]`` holds the two groups.
    chosen, null
        Genes of the two partial edits.
    drivers
        Feature (``"marker"``, ``"nucleus_area"``) -> genes whose rank should follow it within a group.
    marker
        Channel whose mean intensity in the window is the marker.
    nucleus
        Channel that stains nuclei.
    truth
        ``truth(source, target, genes)`` -> crops of the source's held-out cells (uint8, in the order of ``adata``) as they
        would be, had the genes (``None``: all) been expressed as in the target; ``None`` for measured tissue.
    notice
        A caution for the reader.
    code
        Python that builds ``adata``.
    train_seconds
        Default limit of the training.
    """

    adata: AnnData
    groupby: str
    groups: tuple[str, str]
    chosen: list[str]
    null: list[str]
    drivers: Mapping[str, Sequence[str]]
    marker: str
    nucleus: str
    origin: str
    code: str
    train_seconds: float
    notice: str = ""
    truth: Callable[[str, str, Sequence[str] | None], np.ndarray] | None = None
    sdata: Mapping[str, SpatialData] = field(default_factory=dict)


def simulated(*, out: Path, seed: int, n_cells: int) -> DemoInput:
    """Two simulated slides, written as CosMx flat files and read back through the reader."""
    import sst

    logger.info("simulating two slides of %d cells ...", n_cells)
    tissue = sst.datasets.simulate_tissue(config=sst.datasets.TissueConfig(n_cells=n_cells, spacing=SPACING, seed=seed))
    folders = tissue.write_cosmx(out / "slides")
    groups = tuple(str(g) for g in tissue.config.groups)
    slides = {g: sst.pp.read_cosmx(folder) for g, folder in zip(groups, folders, strict=True)}
    channels = [sst.datasets.MARKER_CHANNEL, sst.datasets.NUCLEUS_CHANNEL]
    adata = _pair(slides, channels=channels, size=SIMULATED_SIZE, label="condition")
    sst.pp.train_test_split(adata, by="fov", seed=seed)

    genes = tissue.genes
    causal = {f: genes.index[genes["causes"] == f].tolist() for f in ("marker", "nucleus_area")}
    chosen = causal["marker"] + causal["nucleus_area"]
    null = [genes.index[genes["matches"] == g][0] for g in chosen]

    def truth(source: str, target: str, genes: Sequence[str] | None) -> np.ndarray:
        cells = (adata.obs["condition"] == source) & (adata.obs["split"] == "test")
        wanted = list(adata.var_names) if genes is None else list(genes)
        return _true_crops(tissue.counterfactual(wanted, source, target), adata, cells.to_numpy())

    code = f"""import anndata as ad, sst

config = sst.datasets.TissueConfig(n_cells={n_cells}, spacing={SPACING}, seed={seed})
tissue = sst.datasets.simulate_tissue(config=config)
normal, tumor = (sst.pp.read_cosmx(folder) for folder in tissue.write_cosmx("slides"))
cut = dict(size={SIMULATED_SIZE}, output_size={OUTPUT_SIZE}, channels={channels})
adata = ad.concat(
    {{"normal": sst.pp.crop_cells(normal, **cut), "tumor": sst.pp.crop_cells(tumor, **cut)}},
    label="condition", index_unique="-", uns_merge="same",
)
sst.pp.rescale_intensity(adata, groupby="condition")
sst.pp.train_test_split(adata, by="fov", seed={seed})"""
    return DemoInput(
        adata=adata,
        groupby="condition",
        groups=(groups[0], groups[1]),
        chosen=chosen,
        null=null,
        drivers=causal,
        marker=channels[0],
        nucleus=channels[1],
        origin="Two slides of simulated tissue with known causes, written as CosMx flat files and read back.",
        code=code,
        train_seconds=TRAIN_SECONDS,
        truth=truth,
        sdata=slides,
        notice="" if n_cells >= FEW else f"Only {n_cells} cells a slide: too few to learn much from.",
    )


def _true_crops(tissue: Tissue, adata: AnnData, cells: np.ndarray) -> np.ndarray:
    """Crops (uint8) of some cells as they are in a tissue, with the slides' own noise and scaled by the limits that they share."""
    names = adata.obs["cell_id"].astype(str).to_numpy()[cells]
    limits = adata.uns["crops"]["limits"]
    low, high = (np.asarray(limits[k], dtype=float)[:, None, None] for k in ("shared_low", "shared_high"))
    channels = [str(c) for c in adata.uns["crops"]["channels"]]

    raw = tissue.render(names, size=SIMULATED_SIZE, output_size=OUTPUT_SIZE, channels=channels)
    return np.rint((np.clip(raw, low, high) - low) / (high - low) * 255).astype(np.uint8)


def from_folders(folders: Sequence[Path], *, out: Path, seed: int) -> DemoInput:
    """One folder (two clusters of expression become the groups) or two folders (one group each)."""
    import sst
    from sst.tl._measuring import find_nucleus_channel

    if len(folders) > 2:
        msg = f"--data: at most two folders, got {len(folders)}."
        raise ValueError(msg)
    slides: dict[str, SpatialData] = {}
    for folder in folders:
        if not folder.is_dir():
            msg = f"--data {folder}: there is no such folder."
            raise FileNotFoundError(msg)
        name = folder.name if folder.name not in slides else f"{folder.name}-2"
        vendor = "xenium" if (folder / "experiment.xenium").exists() else "cosmx"
        logger.info("reading %s (%s) ...", folder, vendor)
        slides[name] = sst.pp.read_xenium(folder) if vendor == "xenium" else sst.pp.read_cosmx(folder)
        size = WINDOWS[vendor]
    two = len(slides) == 2
    adata = _pair(slides, channels=None, size=size, label="condition" if two else "sample")
    if not two:
        adata.obs["condition"] = _two_clusters(adata, seed=seed)
        sst.pp.rescale_intensity(adata, groupby="sample")
    _hold_out(adata, size=size, seed=seed)

    groups = [str(g) for g in adata.obs["condition"].cat.categories]
    chosen, null = _contrast(adata, groups)
    channels = [str(c) for c in adata.uns["crops"]["channels"]]
    nucleus = channels[find_nucleus_channel(channels)]
    marker = next((c for c in channels if c != nucleus), nucleus)
    few = adata.n_obs < FEW
    reader = "read_xenium" if vendor == "xenium" else "read_cosmx"
    code = "import anndata as ad, sst\n\n" + "\n".join(
        f'slide_{i} = sst.pp.crop_cells(sst.pp.{reader}("{f.name}"), size={size}, output_size={OUTPUT_SIZE})'
        for i, f in enumerate(folders)
    )
    return DemoInput(
        adata=adata,
        groupby="condition",
        groups=(groups[0], groups[1]),
        chosen=chosen,
        null=null,
        drivers={"marker": chosen[:1], "nucleus_area": chosen[:1]},
        marker=marker,
        nucleus=nucleus,
        origin=f"Measured tissue: {', '.join(f.name for f in folders)}."
        + ("" if two else " Without a condition in the folder, the groups are two clusters of expression (k-means)."),
        code=code,
        train_seconds=60.0 if few else TRAIN_SECONDS,
        sdata=slides,
        notice=f"Only {adata.n_obs} cells: this shows that the path works on such files. A generator needs tens of "
        "thousands of cells to learn what genes do; no number below is a finding."
        if few
        else "",
    )


def _pair(slides: Mapping[str, SpatialData], *, channels: list[str] | None, size: int, label: str) -> AnnData:
    """Cut, concatenate, and (two conditions) rescale to a shared scale."""
    import anndata as ad

    import sst

    cut = {}
    for name, sdata in slides.items():
        logger.info("cutting the cells of %s ...", name)
        cut[name] = sst.pp.crop_cells(sdata, size=size, output_size=OUTPUT_SIZE, channels=channels)
    adata = ad.concat(cut, label=label, index_unique="-", uns_merge="same")
    if label == "condition":
        sst.pp.rescale_intensity(adata, groupby=label)
    return adata


def _hold_out(adata: AnnData, *, size: int, seed: int, least: int = 3) -> None:
    """Hold out whole fields of view, or tiles where there are few, such that both groups have held-out cells."""
    import pandas as pd

    import sst

    fovs = adata.obs["fov"].nunique() >= 10
    side = max(int(np.ptp(adata.obsm["spatial_px"], axis=0).max() / 4), size)
    for attempt in range(20):
        sst.pp.train_test_split(adata, by="fov" if fovs else "tile", tile_size=side, seed=seed + attempt)
        cells = pd.crosstab(adata.obs["condition"], adata.obs["split"])
        if cells.reindex(columns=["train", "test"], fill_value=0).to_numpy().min() >= least:
            return
    msg = (
        f"no split by region leaves {least} cells of each group on both sides; there are too few cells: {adata.n_obs}."
    )
    raise ValueError(msg)


def _two_clusters(adata: AnnData, *, seed: int) -> pd.Categorical:
    import pandas as pd
    import scanpy as sc
    from sklearn.cluster import KMeans

    work = adata.copy()
    del work.obsm
    keep = np.asarray(work.X.sum(axis=1)).ravel() > 0
    work = work[keep].copy()
    sc.pp.normalize_total(work)
    sc.pp.log1p(work)
    n_comps = max(2, min(20, work.n_obs - 1, work.n_vars - 1))
    sc.pp.pca(work, n_comps=n_comps, random_state=seed)
    label = np.zeros(adata.n_obs, dtype=int)
    found = KMeans(2, n_init=10, random_state=seed).fit_predict(work.obsm["X_pca"])
    if min(found.mean(), 1 - found.mean()) < 0.2:  # a few odd cells against the rest: halve along the first component
        logger.info(
            "the smaller cluster holds under a fifth of the cells: the groups are halves along the first component"
        )
        first = work.obsm["X_pca"][:, 0]
        found = (first > np.median(first)).astype(int)
    label[keep] = found
    return pd.Categorical([f"cluster {i + 1}" for i in label], categories=["cluster 1", "cluster 2"])


def _contrast(adata: AnnData, groups: Sequence[str], n: int = 5) -> tuple[list[str], list[str]]:
    """The genes that differ most between the groups, and as many of like expression that differ least."""
    counts = adata.X
    in_group = [(adata.obs["condition"] == g).to_numpy() for g in groups]
    mean = [np.asarray(counts[m].mean(axis=0)).ravel() for m in in_group]
    total = mean[0] + mean[1]
    score = np.abs(mean[0] - mean[1]) / np.sqrt(total + 1e-9)
    chosen = np.argsort(-score)[: min(n, adata.n_vars // 4)]
    null: list[int] = []
    quiet = [j for j in np.argsort(score) if j not in set(chosen)][: max(4 * n, adata.n_vars // 2)]
    for j in chosen:
        best = min((k for k in quiet if k not in null), key=lambda k: abs(np.log1p(total[k]) - np.log1p(total[j])))
        null.append(int(best))
    return adata.var_names[chosen].tolist(), adata.var_names[null].tolist()
