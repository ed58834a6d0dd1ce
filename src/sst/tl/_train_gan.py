"""Train the gene-driven generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sst import _keys
from sst._settings import logger, settings
from sst.models import GAN, Registry, build_generator, remember
from sst.nn import Discriminator
from sst.train import (
    Cells,
    Checkpoints,
    GANConfig,
    fit,
    gan_task,
    gan_warnings,
    load_average,
    resolve_precision,
    to_dict,
)

from ._training import (
    TRAINING,
    GanInputs,
    HeldOut,
    check_processes,
    claim,
    gan_inputs,
    keep,
    model_folder,
    override,
    sample_grid,
    train_in_processes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


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
    devices: int | None = None,
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
    config = override(config, iterations=iterations, max_seconds=max_seconds, devices=devices)
    seed = settings.seed if seed is None else seed
    where = settings.torch_device(device)
    check_processes(config, where)
    registry = Registry.from_adata(adata, groupby, kind=GAN.kind)
    inputs = gan_inputs(adata, registry, groupby, layer, seed)
    folder = model_folder(out, GAN.kind)
    claim(folder, config, registry, seed)
    rest = {"groupby": groupby, "resume": resume, "seed": seed, "use": use}
    if train_in_processes("train_gan", adata, config, rest, layer=layer, folder=folder, device=where):
        remember(adata, name, folder)
        return GAN.load(folder, device=str(where))
    model = _train(inputs, config, folder=folder, device=where, resume=resume, seed=seed, use=use)
    keep(model, adata, name, folder)
    return model


def _train(
    inputs: GanInputs,
    config: GANConfig,
    *,
    folder: Path,
    device: torch.device,
    resume: bool,
    seed: int,
    use: str,
) -> GAN:
    """Train in this process."""
    cells = Cells(inputs.crops, inputs.counts, inputs.codes, rows=inputs.rows, config=config.data)
    generator, discriminator = _networks(inputs, config, seed, device)
    task = gan_task(generator, discriminator, config)
    task.watch = gan_warnings
    test = HeldOut(inputs.held_images, inputs.held_counts, inputs.held_names)
    count = len(inputs.held_names)
    spread = np.linspace(0, count - 1, min(12, count)).astype(int)
    real, some = inputs.held_images[spread], HeldOut.__new__(HeldOut)
    some.counts, some.names = test.counts[spread], [test.names[i] for i in spread]
    task.evaluate = lambda: test(task.averages["generator"])
    task.samples = lambda: sample_grid(real, some.images(task.averages["generator"]))

    result = fit(
        task, cells, config.fit, folder=folder / TRAINING, resume=resume, seed=seed, device=device, name="train_gan"
    )
    average: Any = task.averages["generator"]
    if use == "best":
        load_average(Checkpoints(folder / TRAINING), "best", "generator", average)
    average.compute_dtype = "fp32"
    logger.info(
        "trained %d iterations in %.0f s (%.1f %% of it waiting for crops); distances in %s; saved %s",
        result.iterations,
        result.seconds,
        100 * result.wait,
        test.name,
        folder,
    )
    return GAN(inputs.registry, config, average, result.history)


def _networks(inputs: GanInputs, config: GANConfig, seed: int, device: torch.device) -> tuple[Any, Discriminator]:
    """Both networks, with the same first weights in every process, and the genes' statistics."""
    registry = inputs.registry
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(registry, config)
        discriminator = Discriminator(
            img_channels=len(registry.channels),
            resolution=registry.output_size,
            n_labels=inputs.n_groups,
            n_genes=len(registry.genes),
            input_transform=config.generator.input_transform,
            **to_dict(config.discriminator),
        )
    mean, std, low, high = (
        torch.from_numpy(np.array(v)).float() for v in (inputs.mean, inputs.std, inputs.low, inputs.high)
    )
    generator.set_range(low, high)
    precision = resolve_precision(config.fit.precision, device)
    for network in (generator, discriminator):
        network.set_statistics(mean, std)
        network.compute_dtype = precision if precision in {"bf16", "fp16"} else "fp32"  # type: ignore[assignment]
    return generator, discriminator
