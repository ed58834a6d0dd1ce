"""Train the contrastive towers on paired cells."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import resolve_table
from sst.models import CLIP, Registry, build_towers, origin, start_towers
from sst.train import CLIPConfig, clip_task

from ._training import Run, held_out_rows, log_statistics, paired_cells

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.train import TowersConfig

    from ._training import PairedCells


@checked
def train_clip(
    adata: AnnData | SpatialData,
    *,
    preset: Literal["paper", "fast", "demo"] = "fast",
    config: CLIPConfig | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    name: str = "clip",
    out: str | Path | None = None,
    iterations: int | None = None,
    max_seconds: float | None = None,
    batch_size: int | None = None,
    held_out: int = 1024,
    embed: bool = True,
    resume: bool = True,
    seed: int | None = None,
    device: str | None = None,
    devices: int | None = None,
    table_key: str = _keys.TABLE,
) -> CLIP:
    """Teach two networks which image and which expression belong to one cell.

    Parameters
    ----------
    adata
        Paired cells with uint8 crops. With ``obs["split"]`` only ``"train"`` cells are learnt from, and quality is measured on
        ``"test"`` cells.
    preset, config
        A named configuration, or your own.
    batch_key
        obs column of the slides, or donors: batches then have as many cells of each, and a cell is told from others of its slide alone
        (``None``: all cells count as of one slide).
    layer
        Counts (``None``: ``X``).
    name
        What the model is called in ``uns["sst"]["models"]``.
    out
        Folder of the model and of its training (``None``: a new one, named by the time, in :attr:`sst.settings.model_dir`).
    iterations, max_seconds, batch_size
        Override the configuration's.
    held_out
        At most so many cells are held out for the measure.
    embed
        Embed all cells and write the two slots.
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
    The model with the best held-out retrieval seen in training; ``model.metrics`` has top-1 and top-10 retrieval in both
    directions beside chance. Writes ``obsm["X_clip_image"]`` and ``obsm["X_clip_expression"]`` (n x dim float32, unit length,
    with ``embed``), ``uns["clip"]["params"|"report"]`` and ``uns["sst"]["models"][name]``.

    Raises
    ------
    KeyError, TypeError, ValueError
        The object has no crops, they are not uint8, or counts are negative or missing.
    """
    table = resolve_table(adata, table_key)
    overrides = {"iterations": iterations, "max_seconds": max_seconds, "batch_size": batch_size, "devices": devices}
    run = Run.plan(
        CLIP, config or CLIPConfig.preset(preset), out=out, device=device, seed=seed, resume=resume, **overrides
    )
    registry = dataclasses.replace(
        Registry.from_adata(table, kind="clip", layer=layer), notes=_notes(run.config.towers)
    )
    data = paired_cells(
        table, run.config.data, held_out_rows(table, held_out, run.seed), batch_key=batch_key, layer=layer
    )
    registry = data.known_to(registry)
    if run.config.epochs and iterations is None:
        count = math.ceil(run.config.epochs * data.cells.n / run.config.fit.batch_size)
        run = dataclasses.replace(run, config=run.config.replace(fit__iterations=max(count, 1)))
    model = run.finish(
        table,
        registry,
        lambda run: _train(run, registry, data),
        name=name,
        layer=layer,
        arguments={
            "iterations": run.config.fit.iterations,
            "batch_key": batch_key,
            "held_out": held_out,
            "embed": False,
        },
    )
    if embed:
        _keys.write_slot(table, "obsm", _keys.X_CLIP_IMAGE, model.embed_images(table))
        _keys.write_slot(table, "obsm", _keys.X_CLIP_EXPRESSION, model.embed_expression(table, layer=layer))
    report: dict[str, Any] = dict(
        model.metrics, iterations=int(model.history.index.max()), model_hash=model.hash, notes=registry.notes
    )
    report |= {"n_train": len(data.train_rows), "n_held_out": len(data.held_out_rows)}
    params = {
        "preset": preset,
        "batch_key": batch_key,
        "layer": layer,
        "name": name,
        "out": str(run.folder),
        "seed": run.seed,
    }
    _keys.write_params(table, "clip", params, **{_keys.REPORT: report})
    if model.metrics:
        logger.info(
            "CLIP: held-out top-10 %.1f %% image to expression, %.1f %% back (chance %.1f %%)",
            *(
                100 * model.metrics[k]
                for k in ("image_to_expression_top10", "expression_to_image_top10", "chance_top10")
            ),
        )
    return model


def _train(run: Run[CLIP], registry: Registry, data: PairedCells) -> CLIP:
    """Train in this process."""
    towers_config = run.config.towers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        towers = build_towers(registry, towers_config)
    if towers_config.transform == "standard":
        towers.set_statistics(*log_statistics(data.cells.expression))
    start_towers(towers, towers_config.weights)
    result = run.fit(clip_task(towers, run.config, data.held_out), data.cells)
    if run.checkpoints.path("best") is not None:
        run.checkpoints.load("best", {"towers": towers}, {}, {})
    return CLIP(registry, run.config, towers, result.history)


def _notes(towers: TowersConfig) -> dict[str, str]:
    network = "ResNet-50" if towers.backbone == "resnet50" else f"small residual network, widths {list(towers.widths)}"
    return {"image tower": f"{network}, started from {origin(towers.weights, 'resnet50')}"}
