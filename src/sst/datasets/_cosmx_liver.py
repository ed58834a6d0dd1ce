"""The CosMx liver data of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._fetch import fetch

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class CosMxLiver:
    """Where the public CosMx liver release was unpacked.

    Attributes
    ----------
    normal, tumor
        Folders with the pictures of the slides 1 and 2.
    tiledb
        TileDB-SOMA group with the tables of both.
    """

    normal: Path
    tumor: Path
    tiledb: Path


def cosmx_liver(*, data_dir: str | Path | None = None) -> CosMxLiver:
    """Download and unpack the public CosMx liver release: normal liver and hepatocellular carcinoma (tens of GB).

    Parameters
    ----------
    data_dir
        See :func:`sst.datasets.fetch`.

    Returns
    -------
    The folders, for ``sst.pp.read_cosmx(files.normal, tiledb=files.tiledb, slide=1)`` and
    ``sst.pp.read_cosmx(files.tumor, tiledb=files.tiledb, slide=2)``.
    """
    return CosMxLiver(
        normal=fetch("cosmx_liver_normal", data_dir=data_dir, unzip=True),
        tumor=fetch("cosmx_liver_tumor", data_dir=data_dir, unzip=True),
        tiledb=fetch("cosmx_liver_expression", data_dir=data_dir, unzip=True),
    )
