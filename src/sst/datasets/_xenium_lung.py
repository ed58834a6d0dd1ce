"""The Xenium lung data of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._fetch import fetch

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class XeniumLung:
    """Where the public Xenium lung bundles were unpacked.

    Attributes
    ----------
    normal, tumor
        The bundles, for :func:`sst.pp.read_xenium`.
    """

    normal: Path
    tumor: Path


def xenium_lung(*, data_dir: str | Path | None = None) -> XeniumLung:
    """Download and unpack the public Xenium lung bundles: non-diseased lung and adenocarcinoma (tens of GB).

    Parameters
    ----------
    data_dir
        See :func:`sst.datasets.fetch`.

    Returns
    -------
    The bundles' folders.
    """
    return XeniumLung(
        normal=fetch("xenium_lung_normal", data_dir=data_dir, unzip=True),
        tumor=fetch("xenium_lung_tumor", data_dir=data_dir, unzip=True),
    )
