"""Proteins, or other measurements of the cells, beside the genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst._arguments import checked
from sst._keys import SEGMENTED
from sst._settings import logger
from sst._validate import check_key

if TYPE_CHECKING:
    from anndata import AnnData

KIND = "kind"


@checked
def add_variables(adata: AnnData, key: str = "protein") -> AnnData:
    """Make the columns of ``obsm[key]`` variables, beside the genes: models then read them, and edits change them, like any gene.

    Parameters
    ----------
    adata
        Paired cells; left as they are.
    key
        Table of ``obsm``, such as the proteins of :func:`sst.pp.read_xenium`: n x q, no value below 0.

    Returns
    -------
    A new object. ``X`` : n x (p + q), CSR float32, genes first; ``layers["segmented"]``, if there is one, likewise: what is measured of the
    cell is its own. ``var["kind"]`` : ``"gene"`` or ``key``. A column named as a gene is gets ``"-<key>"`` behind its name. ``obs``, ``uns``,
    ``obsp`` and the other ``obsm`` are kept; other layers, ``varm`` and ``raw``, which know of genes alone, are not.

    Raises
    ------
    KeyError
        There is no such table.
    TypeError
        It is none, or holds no numbers.
    ValueError
        Values are negative or missing.
    """
    from anndata import AnnData
    from scipy import sparse

    table = check_key(adata, "obsm", key)
    if not isinstance(table, pd.DataFrame):
        msg = f"obsm[{key!r}] is {type(table).__name__}: a DataFrame is needed, whose columns have names."
        raise TypeError(msg)
    try:
        values = table.to_numpy(dtype=np.float32)
    except (TypeError, ValueError) as error:
        msg = f"obsm[{key!r}] must hold numbers ({error})."
        raise TypeError(msg) from error
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        msg = f"obsm[{key!r}]: cell {adata.obs_names[row]!r} has {values[row, column]} of {table.columns[column]!r}; values of 0 and above are needed."
        raise ValueError(msg)
    genes = set(map(str, adata.var_names))
    names = [f"{name}-{key}" if name in genes else name for name in map(str, table.columns)]
    more = sparse.csr_matrix(values)

    def beside(matrix: object) -> sparse.csr_matrix:
        return sparse.hstack([sparse.csr_matrix(matrix, dtype=np.float32), more], format="csr")

    var = pd.concat([adata.var.assign(**{KIND: "gene"}), pd.DataFrame({KIND: key}, index=names)])
    var[KIND] = var[KIND].astype("category")
    left = [*(f"layers[{n!r}]" for n in adata.layers if n != SEGMENTED), *(f"varm[{n!r}]" for n in adata.varm)]
    if left := [*left, *(["raw"] if adata.raw is not None else [])]:
        logger.info("left out, which know of genes alone: %s", ", ".join(left))
    return AnnData(
        beside(adata.X),
        obs=adata.obs.copy(),
        var=var,
        uns=dict(adata.uns),
        obsm={name: value for name, value in adata.obsm.items() if name != key},
        obsp=dict(adata.obsp),
        layers={SEGMENTED: beside(adata.layers[SEGMENTED])} if SEGMENTED in adata.layers else {},
    )
