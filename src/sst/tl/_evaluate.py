"""The paper's evaluation: eight conditions, both directions, with controls and floors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst import _keys
from sst._arguments import checked
from sst._files import write_text
from sst._validate import resolve_table

from ._evaluating import CONTROLS, Evaluation, EvaluationOptions, Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData

    Subset = np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None


@checked
def evaluate(
    adata: AnnData | SpatialData,
    *,
    model: Any = None,
    genes: str | Iterable[str] | None = None,
    subset: Subset = None,
    groupby: str | None = None,
    target: str | None = None,
    method: str = "ot",
    top_k: int | None = 1,
    n_max: int = 50_000,
    repeats: int = 4,
    metrics: Sequence[str] = ("frechet", "kid", "d_eig", "d_lea"),
    features: Any = "auto",
    controls: Sequence[str] = CONTROLS,
    n_measured: int = 5000,
    lpips_weights: str | Path | None = None,
    nucleus_channel: str | int | None = None,
    layer: str | None = None,
    level: float = 0.95,
    batch_key: str | None = None,
    rival: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    key_added: str = "evaluation",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Measure what edits change, in the paper's eight conditions and both directions, on held-out cells.

    {generated, reconstructed, this cell} x {chosen genes, all genes} x {all cells, subset}, as far as there are models (a GAN, an inversion,
    an editor; rivals besides, by their names), genes and a subset. For each: distances of the images to both groups' real
    images before and after the edit with the real-to-real floor (see :func:`sst.tl.distances` for how samples are drawn); cell features before and after against the
    real gap; for reconstructions PSNR and SSIM. Controls beside them: as many random genes of like expression, and an
    inversion's fade without an edit. Edits are learnt from training cells. Images are made batch by batch and not kept.

    Parameters
    ----------
    adata
        Paired cells.
    model
        Image models: one or a list of models, folders or names; ``None``: all that were trained on this object.
    genes
        The chosen genes; ``None``: only the edit of all genes.
    subset
        The subtype: boolean mask, query of ``obs``, or ``{key: [categories]}``. Edits of these cells are learnt from these
        cells alone. ``None``: only all cells.
    groupby
        Column of the groups; ``None``: the model's.
    target
        Group that all others are edited toward. ``None``: of two groups each toward the other; of more it must be named.
    method, top_k
        Of the edit, see :func:`sst.tl.edit`.
    n_max, repeats
        Most cells in a sample, and how many random draws.
    metrics
        Distances, see :func:`sst.tl.distances`.
    features
        Feature space, see :func:`sst.tl.distances`.
    controls
        Of ``"random"`` and ``"fade"``.
    n_measured
        Cells of each group whose nuclei and reconstructions are measured.
    lpips_weights
        AlexNet's weights (a path, or ``"download"``) for LPIPS; ``None``: without.
    nucleus_channel
        As in :func:`sst.tl.morphology`.
    layer
        Layer of the counts; ``None``: ``X``.
    level
        Of the confidence intervals.
    batch_key
        Column of ``obs`` with the donors (or slides): edits are learnt donor by donor as in :func:`sst.tl.edit`, and changes of features, with
        their intervals and tests, are over donors. Held out by donor (:func:`sst.pp.train_test_split`) no donor that is measured was learnt from.
    rival
        Fit a rival (kind of :func:`sst.tl.fit_rival`: ``"morph_lasso"``, ``"morph"``, ``"nearest"``, ...) on the same training cells and measure it beside the
        models: where no truth is known, what a model is worth is how far it is ahead of that.
    out
        Folder for the tables (CSV) and for finished parts: a second call with the same settings takes up where the first
        stopped.
    seed
        Of draws, latents and noise.
    batch_size
        Cells at a time when images are made.
    device
        For feature networks and the Frechet distance.
    key_added
        Name of the slot in ``uns``.
    copy
        Return an evaluated copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``:

    ``distances``
        DataFrame, one row a condition, group, reference and metric: ``images``, ``edit`` (``none``, ``chosen``, ``all``,
        ``random``, ``fade``), ``cells``, ``source``, ``reference``, ``relation``, ``metric``, ``role`` (``before``, ``after``,
        ``control``), ``mean``, ``sd``, ``floor``, ``floor_sd``, ``change`` with ``change_low``, ``change_high``, ``n``,
        ``repeats``, ``features``.
    ``morphology``
        DataFrame, one row a condition, direction and feature: means of real, before and after, ``change`` with its interval,
        ``gap``, ``gap_closed``, ``hedges_g``, ``cliffs_delta``, ``p``, ``q``, ``n``,
        ``n_fields``: intervals and tests are over fields of view, ``q`` is corrected for all rows. With ``batch_key`` they are over donors
        (``n_donors``; ``gap`` has an interval over donors, too, ``gap_low`` and ``gap_high``).
    ``donors``
        With ``batch_key``: DataFrame, each donor's ``change`` and ``n`` cells, one row a condition, direction, feature and donor.
    ``reconstruction``
        DataFrame: ``metric``, ``channel``, ``group``, ``mean``, ``low``, ``high`` (empty without an inversion).
    ``params``
        Settings, hashes of models, genes of each edit.

    and the same tables to ``out``.

    Raises
    ------
    KeyError
        No model, slot, gene or column.
    ValueError
        Too few held-out cells, ``out`` holds another evaluation, an unknown choice, more than two groups without a ``target``.

    References
    ----------
    Wu and Koelzer (2024), figures q.1 to q.3 and tables of the evaluation.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    options = EvaluationOptions(
        method=method,
        top_k=top_k,
        layer=layer,
        n_max=n_max,
        repeats=repeats,
        metrics=metrics,
        controls=controls,
        n_measured=n_measured,
        lpips_weights=lpips_weights,
        nucleus_channel=nucleus_channel,
        level=level,
        batch_key=batch_key,
        seed=seed,
        batch_size=batch_size,
        device=device,
    )
    evaluation = Evaluation.plan(
        table,
        options,
        model=model,
        genes=genes,
        subset=subset,
        groupby=groupby,
        target=target,
        features=features,
        rival=rival,
    )
    params = evaluation.params
    folder = Folder(None if out is None else Path(out), {k: v for k, v in params.items() if v is not None})
    tables = evaluation.run(folder)
    if folder.path is not None:
        for name, one in tables.items():
            if name == "donors" and not len(one):
                continue
            write_text(folder.path / f"{name}.csv", one.to_csv(index=False))
    _keys.write_params(table, key_added, params, **{k: v for k, v in tables.items() if len(v)})
    return table if copy else None
