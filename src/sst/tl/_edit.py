"""Edit expression toward another group, and make the images of the edited cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sst import _keys
from sst._arguments import checked
from sst._validate import resolve_table

from ._editing import Drawing, EditRequest, find_model, run_edit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.editing import Operator


@checked
def edit(
    adata: AnnData | SpatialData,
    genes: str | Path | Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    groupby: str | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    method: str | Operator = "ot",
    top_k: int | None = 1,
    strength: float = 1.0,
    clip: bool = True,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    layer: str | None = None,
    model: Any = "last",
    key_added: str = _keys.EDITED,
    copy: bool = False,
    value: float | Mapping[str, float] | str | None = None,
    fit_on: str = "train",
    fit_subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    latent: bool = False,
    force: bool = False,
    batch_key: str | None = None,
    part: Literal["own", "niche"] | None = None,
    fade: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    store: str | Path | None = None,
    devices: int | str | Sequence[str] | None = None,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Edit genes of cells toward another group, and show what the cells would look like.

    Parameters
    ----------
    adata
        Paired cells.
    genes
        Genes to change: a name, a list, ``{set: genes}``, a GMT file (``"sets.gmt:NAME"`` for one of its sets), or
        ``None`` for all. All others keep their values, bit by bit (as float32).
    groupby
        Column of ``obs`` with the groups (default: the model's, else ``"condition"``).
    source
        Edit cells of this group (default: of every group but ``target``).
    target
        Group to go toward. Without source and target, of two groups each cell goes toward the other.
    method
        ``"ot"`` (the map of least displacement to the target's second moments), ``"scm"`` (the paper's rotation of eigenvectors, which
        mixes the ranks of cells), ``"ot_centered"``, ``"mean"``, ``"quantile"``,
        ``"scale"``, ``"knockout"``, ``"set"``, ``"from_layer"``, or an operator of :mod:`sst.editing`.
    top_k
        For ``"scm"``: leading components to scale; ``None`` for all (full match of the second moments).
    strength
        0 leaves the cells, 1 is the whole edit, between lies the straight line.
    clip
        Set negative values to 0.
    subset
        Cells to edit: boolean mask, query of ``obs``, or ``{key: [categories]}``.
    part
        Edit this half of each window's counts, learnt from that half of the groups, and leave the other: ``"own"``, those of the cell
        (``layers["segmented"]``, as far as the window has them), what if *this cell* changed; ``"niche"``, all others, what if *its
        neighbourhood* changed. A model that was trained with ``inputs=("own", "niche")`` sees which; any other sees the window's sum.
        ``None``: the window as one, of which each half keeps its share.
    layer
        Counts to edit, ``None`` for ``X``.
    model
        Image model: ``"last"`` (last trained on this object; none: expression only), a name, a folder, a model, several
        of one kind as a list (:class:`sst.models.Ensemble`: their mean is drawn), or ``None`` for expression only.
    key_added
        Name of the slots.
    copy
        Return an edited copy (of the table).
    value
        For ``"scale"`` the factor, for ``"set"`` the counts (a number, or ``{gene: number}``, which with ``genes=None`` names the genes that
        are edited), for ``"from_layer"`` the
        name of the layer with the counterfactual.
    fit_on
        ``"train"``: if there is ``obs["split"]``, groups are learnt from its training cells alone; ``"all"``: from all cells.
    fit_subset
        Learn from these cells of the groups only (same forms as ``subset``), e.g. one cell type.
    latent
        Take counts for noisy readings of expression: what the image model is shown is chosen such that the *inferred* expression of
        the edited genes moves as asked and that of all others stays (:class:`sst.editing.LatentExpression`). At the depth of real
        panels an image model's answer to a few genes is damped otherwise, and shared by genes that merely go with them.
        ``layers[key_added]``, what is asked for, is the same with and without.
    force
        Edit genes by ``latent`` that are mostly counting noise.
    batch_key
        Column of ``obs`` with the slides, or donors: an edit is learnt for each source donor, toward each of the target's donors (toward its
        own cells of the target group alone, if it has some), and the mean over these is taken, so that each donor counts alike and keeps an
        edit of its own. Cells of donors without cells to learn from (held out) get the mean of the others' edits. ``None``: from all cells
        of the groups together.
    fade
        For an inversion: how far the code that copies the cell's pixels fades in the edited image (default 1).
    seed
        Of latent and noise, which depend on the cell's name and the seed alone.
    batch_size
        Cells per batch when images are made.
    store
        Folder that the edited expression is written into and images are drawn into, block by block: the layer is then a memory map, and
        ``obsm`` holds lazy arrays, in which cells that were not edited are a view of their images before. The same call goes on after an interruption. ``None``: memory; a folder beside the store that
        crops come from, if the images would take more than a quarter of the free memory (the log says which).
    devices
        That share the cells: how many, or their names (``["cuda:0", "cuda:1"]``); each gets a copy of the model. ``None``: where the
        model is; with a ``dask.distributed`` client and a store, the client's workers draw.
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes

    ``layers[key_added]`` : n x p, float32
        Edited expression, CSR if the counts are sparse.
    ``layers[f"{key_added}_own"]``, ``layers[f"{key_added}_niche"]`` : n x p, float32
        The halves of ``layers[key_added]``, which is their sum: with ``part``, or a model that reads them apart.
    ``layers[f"{key_added}_shown"]`` : n x p, float32, ``var[f"{key_added}_reliability"]`` : p
        With ``latent``: what the image model was shown (above -1), and the share of each gene's variance that is not counting noise.
    ``obsm["generated"]``, ``obsm[key_added]`` : n x c x h x w, uint8
        Images before and after (with a model); of the former is kept what this model and seed drew from these counts. With a
        ``subset`` only its cells are drawn: ``obs["generated_drawn"]`` and ``obs[f"{key_added}_drawn"]`` say which. With an inversion,
        whose images also change because the code of the pixels fades, ``obsm[f"{key_added}_fade_only"]`` (genes as they
        were) and ``obsm[f"{key_added}_genes_only"]`` (nothing faded) keep the two apart.
    ``obsm[f"{key_added}_spread"]`` : n x c, float32
        With several models: how far their images lie apart (root mean square over pixels of the standard deviation over models); of
        models that redraw a cell that includes how differently they draw it unedited.
    ``uns[key_added]["params"]``
        What :func:`sst.tl.replay` needs to repeat the edit.
    ``uns[key_added]["report"]``
        ``directions`` (DataFrame: cells learnt from and edited, error of the second moments before, after and without
        clipping, share and mass clipped, displacement, distances to real target cells against the real-to-real floor),
        ``batches`` (with ``batch_key``: DataFrame, one row a direction and source donor: whose edit its cells got, and from how many it was
        learnt),
        ``genes`` (DataFrame: means of source, target and edited cells), ``latent`` (how
        the shown expression was found), ``expression_hash``, ``model_hash``, ``version``.

    Raises
    ------
    KeyError
        A gene, column, layer or category is unknown; ``part`` without ``layers["segmented"]``.
    FileExistsError
        ``store`` holds images that were drawn from something else.
    ValueError
        A group is unknown, empty or of one cell; a subset is empty; counts are NaN or negative; a gene asked for by name
        is constant over source and target, or (``latent``, without ``force``) mostly noise.

    References
    ----------
    Wu and Koelzer, *SST-editing: in silico spatial transcriptomic editing at single-cell resolution* (2024).
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    request = EditRequest(
        genes=genes,
        groupby=groupby,
        source=source,
        target=target,
        method=method,
        top_k=top_k,
        strength=strength,
        clip=clip,
        subset=subset,
        layer=layer,
        value=value,
        fit_on=fit_on,
        fit_subset=fit_subset,
        latent=latent,
        force=force,
        part=part,
        batch_key=batch_key,
    )
    drawing = Drawing.of(seed=seed, fade=fade, batch_size=batch_size, store=store, devices=devices)
    run_edit(table, request, model=find_model(table, model), key=key_added, drawing=drawing)
    return table if copy else None
