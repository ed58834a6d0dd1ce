"""The gene table of a simulated tissue: programmes, causes, and each gene's level in both groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from ._config import TissueConfig

# Causal genes: what they set, effect on the log of it per unit of log expression, mean counts and SD of the log in both groups.
CAUSAL = {
    "HLA-A": ("marker", 0.45, (24.0, 47.0), (0.50, 0.58)),
    "B2M": ("marker", 0.45, (30.0, 57.0), (0.50, 0.56)),
    "H2AZ1": ("nucleus_area", 0.46, (50.0, 118.0), (0.60, 0.66)),
    "HMGB2": ("texture", 0.60, (14.0, 25.0), (0.45, 0.50)),
}
# Share of a gene's transcripts inside the nucleus: those of the size gene hardly leave it.
NUCLEAR = {"HLA-A": 0.5, "B2M": 0.5, "H2AZ1": 0.97, "HMGB2": 0.8}
# Share of a causal gene's variance that it has in common with its programme.
LOADING = {"HLA-A": 0.4, "B2M": 0.4, "H2AZ1": 0.55, "HMGB2": 0.4}
# Genes that cause nothing and have exactly the levels (and the spread) of a causal gene: the null edit.
MATCHED = {"APOA1": "HLA-A", "TTR": "B2M", "SERPINA1": "H2AZ1", "MALAT1": "HMGB2"}
PROGRAMMES = {
    "antigen": ("HLA-B", "HLA-C", "HLA-DRA", "HLA-DRB1", "CD74", "STAT1", "IFI27", "PSMB9"),
    "cycle": ("MKI67", "TOP2A", "STMN1", "PCNA", "TYMS", "CENPF", "CCND1", "TUBB", "TUBB4B"),
    "secretion": ("APOC1", "FGG", "APOE", "AZGP1", "SOD2", "FABP5"),
    "matrix": ("COL1A1", "COL3A1", "TAGLN", "ACTA2", "SPARC", "VIM", "LUM", "DCN", "BGN"),
    "immune": ("CD3E", "CD8A", "CCL5", "IL7R", "CD68", "C1QA", "LYZ", "MS4A1", "NKG7"),
    "stress": ("HSPA1A", "JUN", "FOS", "NEAT1", "MT1X", "DUSP1", "ATF3", "HIF1A", "VEGFA", "GDF15", "KRT8", "KRT18"),
}
SHARED_BY = {"HLA-A": "antigen", "B2M": "antigen", "H2AZ1": "cycle", "HMGB2": "cycle"}
OWN = ("secretion", "matrix", "immune", "stress")


def make_genes(config: TissueConfig, rng: np.random.Generator) -> pd.DataFrame:
    """The panel, one gene a row.

    Returns
    -------
    ``programme`` and ``loading`` (share of the gene's variance that its programme explains); ``causes`` ("" for nothing) and
    ``effect`` (change of the log of what it causes per unit of log expression); ``matches`` (the causal gene whose levels it
    copies, or ""); ``mean_<group>`` (expected counts of a cell of depth 1) and ``sd_<group>`` (SD of the log of that);
    ``nuclear`` (share of its transcripts inside the nucleus).
    """
    first, second = config.groups
    rows: dict[str, dict[str, object]] = {}

    def add(name: str, programme: str, loading: float, mean: tuple, sd: tuple, **more: object) -> None:
        rows[name] = {
            "programme": programme,
            "loading": loading,
            "causes": "",
            "effect": 0.0,
            "matches": "",
            f"mean_{first}": mean[0],
            f"mean_{second}": mean[1],
            f"sd_{first}": sd[0],
            f"sd_{second}": sd[1],
            "nuclear": 0.35,
        } | more

    for name, (feature, effect, mean, sd) in CAUSAL.items():
        add(name, SHARED_BY[name], LOADING[name], mean, sd, causes=feature, effect=effect, nuclear=NUCLEAR[name])
    for i, (name, source) in enumerate(MATCHED.items()):
        add(name, OWN[i % len(OWN)], LOADING[source], *CAUSAL[source][2:], matches=source, nuclear=NUCLEAR[source])
    named = [(name, programme) for programme, names in PROGRAMMES.items() for name in names]
    # Programmes take turns, so that a short panel still has some genes of each.
    named.sort(key=lambda item: PROGRAMMES[item[1]].index(item[0]))
    extra = [(f"GENE{i:04d}", str(rng.choice([*PROGRAMMES]))) for i in range(1, config.n_genes)]
    for name, programme in (named + extra)[: config.n_genes - len(rows)]:
        level = float(np.exp(rng.normal(0.4, 0.7)))
        # Most genes differ between the slides, whether they cause something or not.
        shift = float(rng.normal(0.0, 0.6)) * (rng.random() < 0.6)
        if programme in {"antigen", "cycle"}:
            level, shift = level * 1.6, abs(shift)
        spread = rng.uniform(0.4, 0.7, size=2)
        add(name, programme, 0.5, (level, level * np.exp(shift)), (spread[0], spread[1]), nuclear=rng.uniform(0.2, 0.6))
    table = pd.DataFrame.from_dict(rows, orient="index")
    table = table.iloc[: config.n_genes].sort_index()
    table.index.name = "gene"
    return table
