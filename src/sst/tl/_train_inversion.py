"""Train the pixel encoder around a frozen generator."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import resolve_table
from sst.models import (
    CLIP,
    GAN,
    Inversion,
    InversionRecord,
    build_encoder,
    distance_notes,
    make_distances,
    origin,
    resolve,
    resolve_distances,
    start_encoder,
)
from sst.train import InversionConfig, inversion_task

from ._training import Run, held_out_rows, paired_cells

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.models import Registry

    from ._training import PairedCells


@checked
def train_inversion(
    adata: AnnData | SpatialData,
    *,
    gan: GAN | str | Path = "gan",
    clip: CLIP | str | Path = "clip",
    preset: Literal["paper", "fast", "demo"] = "fast",
    config: InversionConfig | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    name: str = "inversion",
    out: str | Path | None = None,
    iterations: int | None = None,
    max_seconds: float | None = None,
    batch_size: int | None = None,
    held_out: int = 512,
    resume: bool = True,
    seed: int | None = None,
    device: str | None = None,
    devices: int | None = None,
    table_key: str = _keys.TABLE,
) -> Inversion:
    """Learn to find the code under which a trained generator draws a given cell.

    Only the pixel encoder E_p learns; the generator and the contrastive encoder E_c stay as they are.

    Parameters
    ----------
    adata
        Paired cells with uint8 crops. With ``obs["split"]`` only ``"train"`` cells are learnt from, and quality is measured on
        ``"test"`` cells.
    gan, clip
        Models, their names in ``uns["sst"]["models"]``, or their folders.
    preset, config
        A named configuration, or your own.
    batch_key
        obs column of the slides, or donors: batches then have as many cells of each
        (``None``: all cells count as of one slide).
    layer
        Counts (``None``: ``X``).
    name
        What the model is called in ``uns["sst"]["models"]``; it becomes the last one.
    out
        Folder of the model and of its training (``None``: a new one, named by the time, in :attr:`sst.settings.model_dir`).
    iterations, max_seconds, batch_size
        Override the configuration's.
    held_out
        At most so many cells are held out for PSNR and SSIM.
    resume
        Go on from an earlier checkpoint in ``out``.
    seed
        Of everything random (default: the setting).
    device
        Defaults to the setting.
    devices
        Train on so many GPUs of this machine (CPU processes, if ``device`` is the CPU), each with its share of every batch. They are started
        here, also from a notebook, unless ``torchrun`` has started them (``None``: the configuration's).
    table_key
        Table of a SpatialData.

    Returns
    -------
    The model with the best held-out PSNR seen in training (running average of the weights). ``model.metrics`` has PSNR and SSIM
    over all and per channel, ``model.config.training.loss`` names the networks of the loss. Writes
    ``uns["inversion"]["params"|"report"]`` and ``uns["sst"]``.

    Raises
    ------
    TypeError
        ``gan`` or ``clip`` is a model of another kind, or crops are not uint8.
    ValueError
        Genes, channels or sizes differ between the object and the models; counts are negative or missing; the GAN was trained with ``inputs=``.
    """
    table = resolve_table(adata, table_key)
    generator_model, clip_model = _model(table, gan, GAN, "gan"), _model(table, clip, CLIP, "clip")
    if generator_model.registry.inputs:
        msg = f"gan reads {list(generator_model.registry.inputs)} apart, an inversion the window as one: train a GAN without inputs=."
        raise ValueError(msg)
    order = generator_model.registry.check(table, layer)
    clip_model.registry.check(table, layer)
    overrides = {"iterations": iterations, "max_seconds": max_seconds, "batch_size": batch_size, "devices": devices}
    run = Run.plan(
        Inversion,
        config or InversionConfig.preset(preset),
        out=out,
        device=device,
        seed=seed,
        resume=resume,
        **overrides,
    )
    config = run.config
    perceptual, identity = resolve_distances(config.loss, len(generator_model.registry.channels))
    if (perceptual, identity) != (config.loss.perceptual, config.loss.identity):
        logger.info("inversion: perceptual loss %r, identity loss %r", perceptual, identity)
    config = config.replace(loss__perceptual=perceptual, loss__identity=identity)
    run = dataclasses.replace(run, config=config)
    notes = distance_notes(config.loss) | clip_model.registry.notes
    notes["pixel encoder"] = f"started from {origin(config.encoder.weights, 'resnet34')}"
    registry = dataclasses.replace(generator_model.registry, kind="inversion", notes=notes)
    data = paired_cells(
        table,
        config.data,
        held_out_rows(table, held_out, run.seed),
        batch_key=batch_key,
        layer=layer,
        order=None if np.array_equal(order, np.arange(len(order))) else order,
    )
    registry = registry if batch_key is None else data.known_to(registry)
    model = run.finish(
        table,
        registry,
        lambda run: _train(run, generator_model, clip_model, registry, data),
        name=name,
        layer=layer,
        arguments={"batch_key": batch_key, "held_out": held_out},
        models={"gan": generator_model, "clip": clip_model},
    )
    named = {key: key.partition(" ") for key in model.metrics}  # "psnr", "psnr DAPI"
    report: dict[str, Any] = {
        f"{what}{gap}{_keys.column_name(channel) if gap else ''}": model.metrics[key]
        for key, (what, gap, channel) in named.items()
    }
    report |= {"iterations": int(model.history.index.max()), "model_hash": model.hash}
    report |= {"perceptual": perceptual, "identity": identity, "notes": notes}
    report |= {"gan": model.config.gan, "clip": model.config.clip}
    report |= {"n_train": len(data.train_rows), "n_held_out": len(data.held_out_rows)}
    params = {
        "preset": preset,
        "batch_key": batch_key,
        "layer": layer,
        "name": name,
        "out": str(run.folder),
        "seed": run.seed,
    }
    _keys.write_params(table, "inversion", params, **{_keys.REPORT: report})
    if model.metrics:
        logger.info("inversion: held-out PSNR %.2f dB, SSIM %.3f", model.metrics["psnr"], model.metrics["ssim"])
    return model


def _train(run: Run[Inversion], gan: GAN, clip: CLIP, registry: Registry, data: PairedCells) -> Inversion:
    """Train in this process."""
    config = run.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        encoder = build_encoder(registry, config, gan.generator)
    start_encoder(encoder, config.encoder.weights)
    perceptual, identity = make_distances(config.loss, clip.towers)
    task = inversion_task(
        encoder,
        gan.generator,
        clip.towers,
        config,
        channels=list(registry.channels),
        perceptual=perceptual,
        identity=identity,
        held_out=data.held_out,
    )
    result = run.fit(task, data.cells)
    average: Any = task.averages["encoder"]
    if run.checkpoints.path("best") is not None:
        run.checkpoints.load("best", {}, {"encoder": average}, {})
    gan.generator.compute_dtype = "fp32"
    record = InversionRecord(config, gan.config.generator, clip.config.towers, gan=gan.hash, clip=clip.hash)
    return Inversion(registry, record, average, gan.generator, clip.towers, result.history)


def _model(adata: AnnData, model: Any, kind: type, what: str) -> Any:
    found = resolve(adata, model)
    if not isinstance(found, kind):
        msg = f"{what}={model!r} is a model of kind {found.registry.kind!r}; a {kind.__name__} is needed."
        raise TypeError(msg)
    return found
