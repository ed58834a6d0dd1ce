"""Slides of tissue whose causes are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ._cells import make_slide
from ._config import TissueConfig
from ._features import draw_features
from ._genes import make_genes
from ._tissue import Tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def simulate_tissue(
    n_cells: int | None = None,
    n_genes: int | None = None,
    groups: Sequence[str] | None = None,
    *,
    preset: Literal["easy", "realistic", "confounded"] = "easy",
    fovs: int | None = None,
    fov_size: int | None = None,
    pixel_size: float | None = None,
    brightness: Mapping[str, float] | None = None,
    seed: int | None = None,
    config: TissueConfig | None = None,
) -> Tissue:
    """Simulate slides of tissue whose causes are known.

    Expression causes morphology, not the other way round, and only a few genes cause anything: HLA-A and B2M the intensity of
    the CD298/B2M ring, H2AZ1 the area of the nucleus, HMGB2 the contrast of its chromatin; in ``"realistic"`` tissue LMNA its
    elongation, LBR its lobes, E2F8 a second nucleus, PLIN2 vacuoles, TAP1 how much of the marker is at the membrane, GBP1 and GBP5,
    only together, granules. All of them differ between the groups in mean and in spread; so do most of the others, which cause
    nothing, some in one programme with the causal ones. APOA1, TTR, SERPINA1 and MALAT1 have exactly the levels of the first
    four in all groups, and cause nothing: the null edit.

    Parameters
    ----------
    n_cells
        Cells of each slide.
    n_genes
        Genes of the panel.
    groups
        Names of the groups; the last has the brighter marker and the larger nuclei.
    preset
        Settings that are not given: see :meth:`TissueConfig.preset`.
    fovs
        Fields of view of each slide.
    fov_size
        Side of a field of view in px; 0: as the density of cells asks for.
    pixel_size
        um per px.
    brightness
        Factor on all signal of a group's slides: a confound that no gene explains.
    seed
        Seed of everything.
    config
        All settings at once; then the others must be left as they are.

    Returns
    -------
    :class:`Tissue`, with

    ``genes``
        one gene a row: ``programme`` and ``loading`` (share of the gene's variance that its programme explains), ``causes`` ("" or
        the feature), ``effect`` (change of the feature's log, or logit, per unit of log expression), ``response`` (``"linear"``,
        ``"saturating"``, ``"joint"``), ``limit``, ``partner``, ``control`` (what kind of gene without an effect it is), ``matches``
        ("" or the causal gene whose levels it has), ``hidden`` (share of its variance that the hidden cause explains), ``type``,
        ``mean_<group>``, ``sd_<group>``, ``nuclear``;
    ``causes``
        one cell a row: ``group``, ``slide`` (number), ``donor`` (name of the slide), ``fov``, ``cell`` (label in its field of view),
        ``x``, ``y`` (px in it), ``nucleus_x``, ``nucleus_y``, ``nucleus_area`` (um2), ``nucleus_area_px``, ``elongation`` (major /
        minor axis), ``angle`` (of the major axis, radians, y down), ``shape_2`` .. ``phase_4`` (outline), ``focus`` (um), ``dapi``,
        ``texture``, ``marker`` and the other features, ``radius`` (um), ``depth``, the features' own noise,
        ``latent_<causal gene>``, ``cell_type``, ``hidden`` (the hidden cause).

    Examples
    --------
    >>> tissue = sst.datasets.simulate_tissue(n_cells=300, fovs=2)
    >>> tissue.true_effect(["HLA-A", "B2M"], "normal", "tumor")["share"]
    >>> adata = tissue.to_adata()
    >>> hard = sst.datasets.simulate_tissue(preset="realistic", n_cells=200, fovs=4)
    >>> hard.gene_sets()["programme"]
    """
    given: dict[str, Any] = {
        "n_cells": n_cells,
        "n_genes": n_genes,
        "groups": groups,
        "fovs": fovs,
        "fov_size": fov_size,
        "pixel_size": pixel_size,
        "brightness": brightness,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if config is None:
        config = TissueConfig.preset(preset, **given)
    elif given or preset != "easy":
        both = ", ".join([*given, *(["preset"] if preset != "easy" else [])])
        msg = f"config and {both} were given: put all settings in config, or none."
        raise TypeError(msg)
    genes = make_genes(config, np.random.default_rng([config.seed, 0]))
    slides = [make_slide(config, genes, slide) for slide in range(len(config.slides))]
    causes = pd.concat([c for c, _ in slides])
    latent = np.concatenate([z for _, z in slides])
    causes = causes.join(draw_features(config, genes, latent, causes))
    for name in genes.index[genes["causes"] != ""]:
        causes[f"latent_{name}"] = latent[:, genes.index.get_loc(name)]
    return Tissue(config=config, genes=genes, causes=causes, latent=latent)
