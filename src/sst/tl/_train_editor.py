"""Train the editor of real cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._settings import logger
from sst._validate import resolve_table
from sst.models import Editor, Registry, build_editor
from sst.train import EditorConfig, editor_task, fit_response, gan_warnings, load_average, some_crops

from ._training import HeldOutEdits, Run, judged, measured_rows, paired_cells, sample_grid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from ._training import PairedCells


@checked
def train_editor(
    adata: AnnData | SpatialData,
    *,
    groupby: str = _keys.CONDITION,
    batch_key: str | None = None,
    inputs: Sequence[Literal["own", "niche"]] | None = None,
    layer: str | None = None,
    config: EditorConfig | None = None,
    preset: Literal["fast", "demo"] = "fast",
    out: str | Path | None = None,
    resume: bool = True,
    iterations: int | None = None,
    max_seconds: float | None = None,
    device: str | None = None,
    devices: int | None = None,
    seed: int | None = None,
    use: Literal["last", "best"] = "last",
    name: str = "editor",
    table_key: str = _keys.TABLE,
) -> Editor:
    """Train an editor that turns *this* cell: its real crop, as it would look under another expression.

    It learns from real cells alone. First a sparse regression with errors in the variables (:func:`sst.editing.sparse_effects`) finds the genes that act on
    what is seen of the crops, and how much: the others are not heard, and an edit of them alone leaves the cell as it is. Then each cell is edited to the expression of another one (of half of them only in a random set of genes); a
    discriminator tells edited cells from real ones of that expression, and a cell that is edited back must be what it was. A cell whose
    expression does not change keeps its image bit for bit. Cells with ``obs["split"] == "train"`` are used (all, if there is no such column);
    those with ``"test"`` measure.

    Parameters
    ----------
    adata
        Paired cells: uint8 ``obsm["crops"]`` of 16 to 256 px (:func:`sst.pp.rescale_intensity`) and counts.
    groupby
        obs column of the groups, which the discriminator knows and the editor does not.
    batch_key
        obs column of the slides, or donors: batches then have as many cells of each, the discriminator is told the slide and compares
        cells of one slide alone, and what genes do is measured within slides, so that a slide's light and stain are not taken for biology
        (``None``: all cells count as of one slide).
    inputs
        ``("own", "niche")``: the cell's own counts (``layers["segmented"]``, as far as the window has them) and all others of the window are
        read apart, so that one can be edited and the other left (:func:`edit`, ``part=``); or one of them alone (``None``: the window as one).
    layer
        Layer with the counts (``None``: ``X``).
    config
        All settings; overrides ``preset``.
    preset
        ``"fast"`` or ``"demo"``, see :meth:`sst.train.EditorConfig.preset`.
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
        Train on so many GPUs of this machine, as in :func:`train_gan` (``None``: the configuration's). Each takes its own share of the cells that are
        edited in part, or back.
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
    The trained model, saved in ``out``. Its ``history`` has, by iteration, the losses (``D/loss``, ``E/loss``, ``E/cycle``, ...),
    ``images_per_second``, and on held-out cells ``distance`` (Frechet distance of images and expression together, between real cells and
    cells edited to one another's expression), ``distance_images``, ``diversity`` and ``returned`` (median PSNR, dB, of cells that were edited
    and edited back). Writes ``uns["sst"]``.

    Raises
    ------
    KeyError
        A slot, a layer or a group is missing (``inputs``: ``layers["segmented"]``).
    TypeError
        Crops are not uint8.
    ValueError
        ``out`` holds a run with other settings or other genes, or the crops' side is none of 16, 32, 64, 128, 256.
    """
    table = resolve_table(adata, table_key)
    overrides = {"iterations": iterations, "max_seconds": max_seconds, "devices": devices}
    run = Run.plan(
        Editor, config or EditorConfig.preset(preset), out=out, device=device, seed=seed, resume=resume, **overrides
    )
    registry = Registry.from_adata(table, groupby, kind=Editor.kind, layer=layer, inputs=inputs)
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


def _train(run: Run[Editor], registry: Registry, data: PairedCells, names: list[str], *, use: str) -> Editor:
    """Train in this process; ``names`` are those of the held-out cells."""
    editor, discriminator = judged(run, registry, data.cells.expression, build_editor, "log1p")
    editor.set_response(*fit_response(data.cells, editor.transform, run.seed, around=editor.around))
    editor.calibrate(some_crops(data.cells, run.seed))
    acting = int((editor.response != 0).any(dim=1).sum())
    if not acting:
        logger.warning(
            "no gene is shown to act on what is seen of the crops of %d cells: this editor will leave every cell as it is.",
            data.cells.n,
        )
    logger.info("%d of %d genes act on what is seen of the crops", acting, editor.n_genes)
    task = editor_task(editor, discriminator, run.config, max(len(registry.inputs), 1))
    task.watch = gan_warnings
    held_out: Any = data.held_out  # ``measured_rows`` gives at least one
    images, expression = (part.numpy() for part in held_out)
    test = HeldOutEdits(images, expression, names, data.held_out_slides)
    some = np.linspace(0, len(names) - 1, min(12, len(names))).astype(int)
    task.evaluate = lambda: test(task.averages["editor"])
    task.samples = lambda: sample_grid(test.crops[some], test.images(task.averages["editor"], some))

    result = run.fit(task, data.cells)
    average: Any = task.averages["editor"]
    if use == "best":
        load_average(run.checkpoints, "best", "editor", average)
    logger.info("trained %d iterations in %.0f s; saved %s", result.iterations, result.seconds, run.folder)
    return Editor(registry, run.config, average, result.history)
