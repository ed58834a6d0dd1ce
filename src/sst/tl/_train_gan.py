"""Train the gene-driven generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import resolve_table
from sst.models import GAN, Registry, build_generator
from sst.train import GANConfig, gan_task, gan_warnings, load_average

from ._training import HeldOut, Run, judged, measured_rows, paired_cells, sample_grid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from ._training import PairedCells


@checked
def train_gan(
    adata: AnnData | SpatialData,
    *,
    groupby: str = _keys.CONDITION,
    batch_key: str | None = None,
    inputs: Sequence[Literal["own", "niche"]] | None = None,
    layer: str | None = None,
    config: GANConfig | None = None,
    preset: Literal["paper", "fast", "demo"] = "fast",
    out: str | Path | None = None,
    resume: bool = True,
    iterations: int | None = None,
    max_seconds: float | None = None,
    device: str | None = None,
    devices: int | None = None,
    seed: int | None = None,
    use: Literal["last", "best"] = "last",
    name: str = "gan",
    table_key: str = _keys.TABLE,
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
    batch_key
        obs column of the slides, or donors: batches then have as many cells of each, the discriminator is told the slide and compares
        cells of one slide alone, and each slide's light has a gain and an offset of its own in training. The generator draws the slides' mean
        (``None``: all cells count as of one slide).
    inputs
        ``("own", "niche")``: the cell's own counts (``layers["segmented"]``, as far as the window has them) and all others of the window are
        read apart, so that one can be edited and the other left (:func:`edit`, ``part=``); or one of them alone (``None``: the window as one).
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
        Torch device (``None``: :attr:`sst.settings.device`).
    devices
        Train on so many GPUs of this machine (CPU processes, if ``device`` is the CPU), each with its share of every batch: the same
        training as on one. They are started here, also from a notebook, unless ``torchrun`` has started them (``None``: the configuration's).
    seed
        Of weights, order of cells and all random numbers (``None``: :attr:`sst.settings.seed`).
    use
        Return the running average of the last iteration, or that of the checkpoint with the smallest distance.
    name
        Name of the model in ``uns["sst"]["models"]``; it becomes the last one.
    table_key
        Table of a SpatialData.

    Returns
    -------
    The trained model, saved in ``out``. Its ``history`` has, by iteration, the losses (``D/loss``, ``G/loss``, ...),
    ``images_per_second``, and on held-out cells ``distance`` (Frechet distance of images and expression together),
    ``distance_images`` and ``diversity`` (1: generated cells vary as much as real ones). Writes ``uns["sst"]``.

    Raises
    ------
    KeyError
        A slot, a layer or a group is missing (``inputs``: ``layers["segmented"]``).
    TypeError
        Crops are not uint8.
    ValueError
        ``out`` holds a run with other settings or other genes, or the crops' side is no power of two.
    """
    table = resolve_table(adata, table_key)
    overrides = {"iterations": iterations, "max_seconds": max_seconds, "devices": devices}
    run = Run.plan(
        GAN, config or GANConfig.preset(preset), out=out, device=device, seed=seed, resume=resume, **overrides
    )
    registry = Registry.from_adata(table, groupby, kind=GAN.kind, layer=layer, inputs=inputs)
    data = paired_cells(
        table,
        run.config.data,
        measured_rows(table),
        groupby=groupby,
        batch_key=batch_key,
        layer=layer,
        inputs=registry.inputs,
    )
    registry = data.known_to(registry)
    names = [str(n) for n in table.obs_names[data.held_out_rows]]
    return run.finish(
        table,
        registry,
        lambda run: _train(run, registry, data, names, use=use),
        name=name,
        layer=layer,
        arguments={"groupby": groupby, "batch_key": batch_key, "inputs": registry.inputs or None, "use": use},
    )


def _train(run: Run[GAN], registry: Registry, data: PairedCells, names: list[str], *, use: str) -> GAN:
    """Train in this process; ``names`` are those of the held-out cells."""
    transform = run.config.generator.input_transform
    generator, discriminator = judged(run, registry, data.cells.expression, build_generator, transform)
    task = gan_task(generator, discriminator, run.config)
    task.watch = gan_warnings
    held_out: Any = data.held_out  # ``measured_rows`` gives at least one
    images, expression = (part.numpy() for part in held_out)
    test = HeldOut(images, expression, names)
    some = np.linspace(0, len(names) - 1, min(12, len(names))).astype(int)
    task.evaluate = lambda: test(task.averages["generator"])
    task.samples = lambda: sample_grid(images[some], test.images(task.averages["generator"], some))

    result = run.fit(task, data.cells)
    average: Any = task.averages["generator"]
    if use == "best":
        load_average(run.checkpoints, "best", "generator", average)
    logger.info(
        "trained %d iterations in %.0f s (%.1f %% of it waiting for crops); distances in %s; saved %s",
        result.iterations,
        result.seconds,
        100 * result.wait,
        test.name,
        run.folder,
    )
    return GAN(registry, run.config, average, result.history)
