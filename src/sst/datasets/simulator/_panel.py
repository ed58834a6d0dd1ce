"""The panel of a tissue of full detail: as sparse and as heavy-tailed as a vendor's, with controls at several distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._cell_types import TYPES

if TYPE_CHECKING:
    from ._config import TissueConfig

# Causal genes: programme, feature, effect, response, expected counts in the first and the last group.
CAUSAL = {
    "HLA-A": ("antigen", "marker", 0.45, "linear", 3.2, 6.2),
    "B2M": ("antigen", "marker", 0.45, "linear", 4.6, 8.8),
    "H2AZ1": ("chromatin", "nucleus_area", 0.46, "linear", 2.9, 6.2),
    "HMGB2": ("chromatin", "texture", 1.2, "saturating", 2.0, 4.0),
    "LMNA": ("lamina", "elongation", 1.0, "linear", 4.0, 2.1),
    "LBR": ("lamina", "lobes", 1.6, "linear", 1.7, 3.6),
    "E2F8": ("ploidy", "two_nuclei", 2.4, "linear", 1.5, 3.4),
    "PLIN2": ("lipid", "vacuoles", 1.8, "linear", 3.8, 1.8),
    "TAP1": ("interferon", "membrane", 2.2, "linear", 3.6, 1.6),
    "GBP1": ("interferon", "granules", 2.6, "joint", 1.8, 3.6),
    "GBP5": ("interferon", "granules", 2.6, "joint", 1.5, 3.3),
}
PARTNER = {"GBP1": "GBP5", "GBP5": "GBP1"}
LIMIT = {"HMGB2": 0.5, "GBP1": 0.4, "GBP5": 0.4}
# Genes of a causal gene's programme that cause nothing; the first has exactly the levels of the causal gene named.
SAME_PROGRAMME = {
    "antigen": ("HLA-A", ("HLA-B", "HLA-C", "CD74", "PSMB9")),
    "chromatin": ("H2AZ1", ("STMN1", "HMGN2", "HMGB1", "SET")),
    "lamina": ("LMNA", ("VIM", "EMD", "TMPO", "SUN1")),
    "ploidy": ("E2F8", ("E2F1", "CCNE1", "CDT1", "GMNN")),
    "lipid": ("PLIN2", ("PLIN3", "FABP5", "ACSL1", "SCD")),
    "interferon": ("TAP1", ("STAT1", "IFI27", "ISG15", "IFIT1")),
}
HIDDEN = (
    "MKI67", "TOP2A", "CENPF", "TYMS", "PCNA", "CCNB1", "UBE2C", "BIRC5", "CDK1", "TUBB", "TUBB4B", "CCND1",
)  # fmt: skip
HIDDEN_SHIFT = 0.7  # of the hidden cause between the first and the last group, in SD
OF_TYPE = {
    "epithelial": ("KRT8", "KRT18", "EPCAM", "KRT19"),
    "fibroblast": ("COL1A1", "COL3A1", "DCN", "LUM", "ACTA2", "TAGLN"),
    "immune": ("PTPRC", "CD3E", "CD8A", "CCL5", "NKG7", "CD52"),
    "endothelial": ("PECAM1", "VWF", "CLDN5"),
}
TYPE_SHIFT = 1.8  # log expression of a type's genes in its cells over that in others
# Other genes of high level, most of which fall: the groups differ in single genes, not in what a cell expresses altogether.
ABUNDANT = {
    "ALB": (5.0, 2.4),
    "FTH1": (4.0, 2.2),
    "MT2A": (3.2, 1.6),
    "FGB": (2.8, 1.5),
    "SAA1": (2.4, 1.3),
    "GLUL": (1.8, 1.6),
}
# Genes of no programme of a causal gene, with the levels of one: the null edit of the plain panel.
MATCHED = {"APOA1": "HLA-A", "TTR": "B2M", "SERPINA1": "H2AZ1", "MALAT1": "HMGB2"}
OWN = ("secretion", "matrix", "immunity", "stress", "transport", "metabolism")
NUCLEAR = {"MALAT1": 0.9, "H2AZ1": 0.5, "HMGB2": 0.5}
TAIL = 1.2  # SD of the log of the expected counts over genes


def make_panel(config: TissueConfig, rng: np.random.Generator) -> pd.DataFrame:
    """The panel, one gene a row, with the columns of :func:`make_genes`."""
    steps = np.linspace(0.0, 1.0, len(config.groups))
    rows: dict[str, dict[str, object]] = {}

    def add(name: str, programme: str, loading: float, levels: np.ndarray, sds: np.ndarray, **more: object) -> None:
        rows[name] = {
            "programme": programme,
            "loading": loading,
            "causes": "",
            "effect": 0.0,
            "response": "",
            "limit": np.nan,
            "partner": "",
            "control": "",
            "matches": "",
            "hidden": 0.0,
            "type": "",
            **{f"mean_{g}": float(v) for g, v in zip(config.groups, levels, strict=True)},
            **{f"sd_{g}": float(v) for g, v in zip(config.groups, sds, strict=True)},
            "nuclear": NUCLEAR.get(name, 0.35),
        } | more

    def like(name: str) -> tuple[np.ndarray, np.ndarray]:
        low, high = CAUSAL[name][4:]
        return low * (high / low) ** steps, 0.5 + 0.06 * steps

    def any_level() -> tuple[np.ndarray, np.ndarray]:
        level = np.exp(rng.normal(0.0, TAIL))
        # Most genes differ between the groups, whether they cause something or not.
        shift = np.concatenate([[0.0], rng.normal(0.0, 0.5, len(steps) - 1) * (rng.random(len(steps) - 1) < 0.6)])
        return level * np.exp(shift), rng.uniform(0.4, 0.65, len(steps))

    for name, (programme, feature, effect, response, *_) in CAUSAL.items():
        add(
            name, programme, 0.4, *like(name), causes=feature, effect=effect, response=response,
            limit=LIMIT.get(name, np.nan), partner=PARTNER.get(name, ""),
        )  # fmt: skip
    for programme, (model, names) in SAME_PROGRAMME.items():
        add(names[0], programme, 0.6, *like(model), control="programme", matches=model)
    for i, (name, model) in enumerate(MATCHED.items()):
        add(name, OWN[i], 0.4, *like(model), control="unrelated", matches=model)
    for i, (name, (low, high)) in enumerate(ABUNDANT.items()):
        levels = low * (high / low) ** steps
        add(name, OWN[i], 0.4, levels, np.full(len(steps), 0.5), control="unrelated")
    for i, name in enumerate(HIDDEN):
        levels, sds = any_level()
        level = 2.0 if i < 4 else levels[0]
        add(
            name,
            "cycle",
            0.1,
            level * np.exp(HIDDEN_SHIFT * steps * sds[0] * 0.6**0.5),
            sds,
            control="hidden",
            hidden=0.6,
        )
    for programme, (_, fellows) in SAME_PROGRAMME.items():
        for name in fellows[1:]:
            add(name, programme, 0.6, *any_level(), control="programme")
    for kind, own in OF_TYPE.items():
        for name in own:
            level, sds = any_level()
            add(name, "types", 0.1, level, sds, control="type", type=kind)
    for i in range(1, config.n_genes - len(rows) + 1):
        add(f"GENE{i:04d}", str(rng.choice(OWN)), 0.5, *any_level(), control="unrelated", nuclear=rng.uniform(0.2, 0.6))
    table = pd.DataFrame.from_dict(rows, orient="index").sort_index()
    table.index.name = "gene"
    if config.counts_per_gene:
        _scale(table, [f"mean_{g}" for g in config.groups], config.counts_per_gene)
    return table


def _scale(table: pd.DataFrame, columns: list[str], wanted: float) -> None:
    """Scale the genes whose level stands nowhere, so that the mean over all genes and groups is ``wanted``."""
    free = ((table["causes"] == "") & (table["matches"] == "") & ~table.index.isin(ABUNDANT)).to_numpy()
    means = table[columns].to_numpy(float, copy=True)
    rest = wanted * len(table) - means[~free].sum() / len(columns)
    # What the named genes have is not taken back: a floor of a tenth of the wanted mean for the others.
    factor = max(rest, 0.1 * wanted * free.sum()) / (means[free].sum() / len(columns))
    means[free] *= factor
    table[columns] = means


def type_levels(genes: pd.DataFrame, kinds: np.ndarray) -> np.ndarray:
    """What a cell's type adds to each gene's log expression (n x p), the mean over the types' usual shares left as it is."""
    out = np.zeros((len(kinds), len(genes)))
    of = genes["type"].to_numpy(str)
    for name, kind in TYPES.items():
        mine = of == name
        mean = np.log(kind.share * np.exp(TYPE_SHIFT) + (1 - kind.share))
        out[:, mine] = np.where(kinds == name, TYPE_SHIFT, 0.0)[:, None] - mean
    return out
