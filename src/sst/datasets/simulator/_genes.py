"""The gene table of a simulated tissue: programmes, causes, and each gene's level in both groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._panel import make_panel

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
    ``effect`` (change of the feature's log, or logit, per unit of log expression); ``response`` (``"linear"``, ``"saturating"``:
    no more than ``limit`` x ``effect``, ``"joint"``: only together with ``partner``, each half on at ``limit`` above the first
    group's mean; "" for no cause); ``control`` ("" for a cause, else ``"programme"``: of a causal gene's programme,
    ``"hidden"``: driven by the hidden cause, ``"type"``: of a cell type, ``"unrelated"``); ``matches`` (the causal gene whose
    levels it copies, or ""); ``hidden`` (share of its variance that the hidden cause explains); ``type`` (whose cells express
    it); ``mean_<group>`` (expected counts of a cell of depth 1) and ``sd_<group>`` (SD of the log of that); ``nuclear`` (share of
    its transcripts inside the nucleus).
    """
    if config.detail == "full":
        return make_panel(config, rng)
    steps = np.linspace(0.0, 1.0, len(config.groups))
    rows: dict[str, dict[str, object]] = {}

    def add(name: str, programme: str, loading: float, mean: tuple, sd: tuple, **more: object) -> None:
        # Groups between the first and the last lie between them.
        means = [*(mean[0] * (mean[1] / mean[0]) ** steps[:-1]), mean[1]]
        sds = [*(sd[0] + (sd[1] - sd[0]) * steps[:-1]), sd[1]]
        rows[name] = {
            "programme": programme,
            "loading": loading,
            "causes": "",
            "effect": 0.0,
            "response": "",
            "limit": np.nan,
            "partner": "",
            "control": "programme" if programme in SHARED_BY.values() else "unrelated",
            "matches": "",
            "hidden": 0.0,
            "type": "",
            **{f"mean_{group}": value for group, value in zip(config.groups, means, strict=True)},
            **{f"sd_{group}": value for group, value in zip(config.groups, sds, strict=True)},
            "nuclear": 0.35,
        } | more

    for name, (feature, effect, mean, sd) in CAUSAL.items():
        cause = {"causes": feature, "effect": effect, "response": "linear", "control": ""}
        add(name, SHARED_BY[name], LOADING[name], mean, sd, nuclear=NUCLEAR[name], **cause)
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


def latent_moments(genes: pd.DataFrame, group: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD of each gene's log expression in a group, such that its expected counts are ``mean_<group>``."""
    sd = genes[f"sd_{group}"].to_numpy(float)
    return np.log(genes[f"mean_{group}"].to_numpy(float)) - sd**2 / 2, sd
