"""The truth about a simulated tissue, beside the files that pretend not to know it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._slides import Slides


def write_truth(tissue: Slides, folder: Path, *, cell_id: Sequence[object] | None = None, **more: object) -> None:
    """``truth.parquet`` (``causes``), ``truth_genes.csv`` and ``truth.json`` (settings, edits, and ``more``).

    ``cell_id`` are the vendor's names of the cells, where they are not those of ``causes``.
    """
    causes = tissue.causes if cell_id is None else tissue.causes.assign(cell_id=list(cell_id))
    causes.to_parquet(folder / "truth.parquet")
    tissue.genes.to_csv(folder / "truth_genes.csv")
    note = {"config": dataclasses.asdict(tissue.config), "edits": list(tissue.edits), **more}
    (folder / "truth.json").write_text(json.dumps(note, indent=1) + "\n")
