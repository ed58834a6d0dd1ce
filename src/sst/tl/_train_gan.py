"""Train the gene-driven generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy import sparse

from sst import _keys
from sst._settings import logger, settings
from sst._validate import check_groups, check_key
from sst.io import crop_reader
from sst.models import GAN, Registry
from sst.models._gan import build_generator
from sst.nn import Discriminator
from sst.train import Cells, Checkpoints, GANConfig, fit, gan_task, gan_warnings, resolve_precision, to_dict
from sst.train._checkpoint import load_average

from ._held_out import MOST, HeldOut, sample_grid
from ._paired_cells import log_statistics
from ._run_folder import TRAINING, claim, keep, model_folder, override

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

RANGE, RANGE_CELLS = (
    0.001,
    20_000,
)  # counts below this quantile of (so many) training cells, or above their largest, are out of range


def train_gan(
    adata: AnnData,
    *,
    groupby: str = _keys.CONDITION,
    layer: str | None = None,
    config: GANConfig | None = None,
    preset: Literal["paper", "fast", "demo"] = "fast",
    out: str | Path | None = None,
    resume: bool = True,
    iterations: int | None = None,
    max_seconds: float | None = None,
    device: str | None = None,
    seed: int | None = None,
    use: Literal["last", "best"] = "last",
    name: str = "gan",
) -> GAN:
    """Train a generator that draws cells from their expression.

    Cells with ``obs["split"] == "train"`` are used (all, if there is no such column); the others with ``"test"`` measure how
    near the generator comes to cells that it never saw. The groups are known to the discriminator alone: the generator sees
    genes and nothing else.

    Parameters
    ----------
    adata
        Paired cells: uint8 ``obsm["crops"]`` (:func:`sst.pp.rescale_intensity`) and counts.
    groupby
        obs column of the groups.
    layer
        Layer with the counts (``None``: ``X``).
    config
        All settings; overrides ``preset``.
    preset
        ``"paper"``, ``"fast"`` or ``"demo"``, see :meth:`sst.train.GANConfig.preset`.
    out
        Folder of the model, its checkpoints, metrics (``training/metrics.csv``) and sample grids (``None``: a new one in
        :attr:`sst.settings.model_dir`).
    resume
        Go on from the last checkpoint in ``out``, as if the run had never stopped.
    iterations, max_seconds
        Instead of the configuration's; training ends with whichever comes first.
    device
        Torch device (``None``: :attr:`sst.settings.device`). With several GPUs start the script with ``torchrun``.
    seed
        Of weights, order of cells and all random numbers (``None``: :attr:`sst.settings.seed`).
    use
        Return the running average of the last iteration, or that of the checkpoint with the smallest distance.
    name
        Name of the model in ``uns["sst"]["models"]``; it becomes the last one.

    Returns
    -------
    The trained model, saved in ``out``. Its ``history`` has, by iteration, the losses (``D/loss``, ``G/loss``, ...),
    ``images_per_second``, and on held-out cells ``distance`` (Frechet distance of images and expression together),
    ``distance_images`` and ``diversity`` (1: generated cells vary as much as real ones). Writes ``uns["sst"]``.

    Raises
    ------
    KeyError
        A slot, a layer or a group is missing.
    TypeError
        Crops are not uint8.
    ValueError
        ``out`` holds a run with other settings or other genes, or the crops' side is no power of two.
    """
    config = config or GANConfig.preset(preset)
    config = override(config, iterations=iterations, max_seconds=max_seconds)
    seed = settings.seed if seed is None else seed
    where = settings.torch_device(device)
    registry = Registry.from_adata(adata, groupby, kind=GAN.kind)
    groups = check_groups(adata, groupby)
    counts = adata.X if layer is None else check_key(adata, "layers", layer, name="layer")
    folder = model_folder(out, GAN.kind)
    claim(folder, config, registry, seed)

    train, held_out = split_rows(adata)
    matrix = sparse.csr_matrix(counts[train])
    codes = np.array([groups.index(str(g)) for g in adata.obs[groupby].to_numpy()[train]])
    reader = crop_reader(adata)
    cells = Cells(reader, matrix, codes, rows=train, config=config.data)
    generator, discriminator = _networks(registry, config, matrix, len(groups), seed, where)
    task = gan_task(generator, discriminator, config)
    task.watch = gan_warnings
    test = HeldOut(
        np.asarray(reader.take(held_out)), _dense(counts[held_out]), [str(n) for n in adata.obs_names[held_out]]
    )
    shown = min(12, len(held_out))
    spread = np.linspace(0, len(held_out) - 1, shown).astype(int)
    real, some = np.asarray(reader.take(held_out[spread])), HeldOut.__new__(HeldOut)
    some.counts, some.names = test.counts[spread], [test.names[i] for i in spread]
    task.evaluate = lambda: test(task.averages["generator"])
    task.samples = lambda: sample_grid(real, some.images(task.averages["generator"]))

    result = fit(
        task, cells, config.fit, folder=folder / TRAINING, resume=resume, seed=seed, device=where, name="train_gan"
    )
    average: Any = task.averages["generator"]
    if use == "best":
        load_average(Checkpoints(folder / TRAINING), "best", "generator", average)
    average.compute_dtype = "fp32"
    model = GAN(registry, config, average, result.history)
    keep(model, adata, name, folder)
    logger.info(
        "trained %d iterations in %.0f s (%.1f %% of it waiting for crops); distances in %s; saved %s",
        result.iterations,
        result.seconds,
        100 * result.wait,
        test.name,
        folder,
    )
    return model


def split_rows(adata: AnnData, fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and at most ``MOST`` held-out rows; without a split, some of the training cells stand in."""
    n = adata.n_obs
    if _keys.SPLIT in adata.obs:
        split = adata.obs[_keys.SPLIT].astype(str).to_numpy()
        train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
        if not len(train):
            msg = f"obs[{_keys.SPLIT!r}] names no cell 'train'; found {sorted(set(split))}."
            raise ValueError(msg)
    else:
        train, test = np.arange(n), np.empty(0, dtype=int)
    if len(test) < 2:
        logger.warning("no held-out cells (sst.pp.train_test_split): distances are measured on training cells.")
        test = train[:: max(1, int(1 / fraction))] if len(train) >= 20 else train
    if len(test) > MOST:
        test = np.sort(np.random.default_rng(0).permutation(test)[:MOST])
    return train, test


def _networks(
    registry: Registry, config: GANConfig, matrix: sparse.csr_matrix, n_groups: int, seed: int, device: torch.device
) -> tuple[Any, Discriminator]:
    """Both networks, with the same first weights in every process, and the genes' statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(registry, config)
        discriminator = Discriminator(
            img_channels=len(registry.channels),
            resolution=registry.output_size,
            n_labels=n_groups,
            n_genes=len(registry.genes),
            input_transform=config.generator.input_transform,
            **to_dict(config.discriminator),
        )
    mean, std = log_statistics(matrix)
    some = np.random.default_rng(seed).permutation(matrix.shape[0])[:RANGE_CELLS]
    low = np.quantile(matrix[np.sort(some)].toarray(), RANGE, axis=0, method="inverted_cdf")
    high = np.maximum(matrix.max(axis=0).toarray().ravel(), low)
    generator.set_range(torch.from_numpy(low).float(), torch.from_numpy(high).float())
    precision = resolve_precision(config.fit.precision, device)
    for network in (generator, discriminator):
        network.set_statistics(mean, std)
        network.compute_dtype = precision if precision in {"bf16", "fp16"} else "fp32"  # type: ignore[assignment]
    return generator, discriminator


def _dense(matrix: Any) -> np.ndarray:
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
