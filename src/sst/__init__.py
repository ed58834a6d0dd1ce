"""In silico editing of spatial transcriptomics: change a cell's genes, see what it would look like.

``sst.pp`` reads CosMx and Xenium and cuts paired cells, ``sst.tl`` trains, edits and measures, ``sst.pl`` draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as _lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import datasets, editing, io, metrics, models, nn, pl, pp, report, tl, train
    from ._settings import settings

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["datasets", "editing", "io", "metrics", "models", "nn", "pl", "pp", "report", "tl", "train"],
    submod_attrs={"_settings": ["settings"]},
)
