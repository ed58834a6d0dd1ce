"""Load a model of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sst._validate import check_choice

from ._base import KINDS, Model
from ._folder import ModelFolder

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def load(folder: str | Path, device: str | torch.device | None = None) -> Model:
    """Read a model's folder, whatever its kind.

    Parameters
    ----------
    folder
        As written by a model's ``save``.
    device
        Where to (``None``: :attr:`sst.settings.device`).

    Returns
    -------
    :class:`GAN`, :class:`CLIP`, :class:`Inversion` or :class:`Editor`.

    Raises
    ------
    FileNotFoundError
        The folder is not a model's.
    ValueError
        Its kind is not known, or its weights are damaged.
    """
    kind = ModelFolder.open(folder).kind
    return KINDS[check_choice("kind", kind, sorted(KINDS))].load(folder, device)
