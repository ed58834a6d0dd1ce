"""The bundle's own clusterings, joined to the cells."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

    from sst.io._read_log import ReadLog

_MOST_BYTES = 1 << 30  # of a table of clusters


def join_clusters(path: Path, table: AnnData, log: ReadLog) -> None:
    """Join ``analysis/clustering/*/clusters.csv``, unpacked or in ``analysis.tar.gz``, to ``obs``."""
    for name, text in sorted(_cluster_files(path, log).items()):
        frame = pd.read_csv(io.BytesIO(text))
        if not {"Barcode", "Cluster"} <= set(frame.columns):
            log.skip("clusterings", 1, f"{name}: no columns Barcode and Cluster but {list(frame.columns)}")
            continue
        if frame["Barcode"].duplicated().any():
            msg = f"{path}: clustering {name} has barcodes twice."
            raise ValueError(msg)
        column = frame.assign(Barcode=frame["Barcode"].astype(str)).set_index("Barcode")["Cluster"]
        values = column.reindex(table.obs["cell_id"].astype(str).to_numpy())
        kinds = [str(int(c)) if isinstance(c, (int, float, np.number)) else str(c) for c in sorted(column.unique())]
        text_of = [
            np.nan if pd.isna(v) else str(int(v)) if isinstance(v, (int, float, np.number)) else str(v) for v in values
        ]
        table.obs[name] = pd.Categorical(text_of, categories=kinds)
        missing = int(values.isna().sum())
        log.add(
            f"clustering {name}", "used", table.n_obs - missing, f"{missing} cells are in no cluster" if missing else ""
        )


def _cluster_files(path: Path, log: ReadLog) -> dict[str, bytes]:
    files = {f.parent.name: f.read_bytes() for f in path.glob("analysis/clustering/*/clusters.csv")}
    packed = path / "analysis.tar.gz"
    if not files and packed.exists():
        try:
            with tarfile.open(packed) as tar:
                for member in tar:
                    parts = Path(member.name).parts
                    if (
                        parts[-1:] == ("clusters.csv",)
                        and "clustering" in parts
                        and (handle := tar.extractfile(member))
                    ):
                        if member.size > _MOST_BYTES:
                            log.skip(
                                "clusterings", 1, f"{member.name} in analysis.tar.gz unpacks to {member.size} bytes"
                            )
                            continue
                        files[parts[-2]] = handle.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            log.skip("clusterings", 1, f"analysis.tar.gz cannot be read ({error})")
    if not files:
        log.add("clusterings", "left", 0, "no analysis/clustering folder")
    return files
