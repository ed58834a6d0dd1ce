"""Two slides of tissue whose causes are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._cells import draw_features, make_slide
from ._config import TissueConfig
from ._genes import make_genes
from ._tissue import Tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def simulate_tissue(
    n_cells: int = 6000,
    n_genes: int = 60,
    groups: Sequence[str] = ("normal", "tumor"),
    *,
    fovs: int = 12,
    fov_size: int = 0,
    pixel_size: float = 0.3,
    brightness: Mapping[str, float] | None = None,
    seed: int = 0,
    config: TissueConfig | None = None,
) -> Tissue:
    """Simulate two slides of tissue.

    Expression causes morphology, not the other way round, and only a few genes cause anything: HLA-A and B2M the intensity of
    the CD298/B2M ring, H2AZ1 the area of the nucleus, HMGB2 the contrast of its chromatin. All four differ between the slides
    in mean and in spread; so do most of the others, which cause nothing, some in one programme with the causal ones. APOA1,
    TTR, SERPINA1 and MALAT1 have exactly the levels of the four in both slides, and cause nothing: the null edit.

    Parameters
    ----------
    n_cells
        Cells of each slide.
    n_genes
        Genes of the panel.
    groups
        Names of the slides; the second has the brighter marker and the larger nuclei.
    fovs
        Fields of view of each slide.
    fov_size
        Side of a field of view in px; 0: as the density of cells asks for.
    pixel_size
        um per px.
    brightness
        Factor on all signal of a slide: a confound of the slide that no gene explains.
    seed
        Seed of everything.
    config
        All settings at once; then the others must be left as they are.

    Returns
    -------
    :class:`Tissue`, with

    ``genes``
        one gene a row: ``programme``, ``loading``, ``causes`` ("" or the feature), ``effect`` (change of the feature's log per
        unit of log expression), ``matches`` ("" or the causal gene whose levels it has), ``mean_<group>``, ``sd_<group>``,
        ``nuclear``;
    ``causes``
        one cell a row: ``group``, ``slide``, ``fov``, ``cell`` (label in its field of view), ``x``, ``y`` (px in it),
        ``nucleus_x``, ``nucleus_y``, ``nucleus_area`` (um2), ``nucleus_area_px``, ``elongation`` (major / minor axis), ``angle``
        (of the major axis, radians, y down), ``shape_2`` .. ``phase_4`` (outline), ``focus`` (um), ``dapi``, ``texture``,
        ``marker``, ``radius`` (um), ``depth``, the features' own noise, ``latent_<causal gene>``, ``cell_type``.

    Examples
    --------
    >>> tissue = sst.datasets.simulate_tissue(n_cells=300, fovs=2)
    >>> tissue.true_effect(["HLA-A", "B2M"], "normal", "tumor")["share"]
    >>> adata = tissue.to_adata()
    """
    given = {
        "n_cells": n_cells,
        "n_genes": n_genes,
        "groups": tuple(groups),
        "fovs": fovs,
        "fov_size": fov_size,
        "pixel_size": pixel_size,
        "brightness": dict(brightness or {}),
        "seed": seed,
    }
    if config is None:
        config = TissueConfig(**given)  # type: ignore[arg-type]
    else:
        usual = TissueConfig()
        both = [name for name, value in given.items() if value != getattr(usual, name)]
        if both:
            msg = f"config and {', '.join(both)} were given: put all settings in config, or none."
            raise TypeError(msg)
    genes = make_genes(config, np.random.default_rng([config.seed, 0]))
    slides = [make_slide(config, genes, slide) for slide in range(2)]
    causes = pd.concat([c for c, _ in slides])
    latent = np.concatenate([z for _, z in slides])
    causes = causes.join(draw_features(config, genes, latent, causes))
    for name in genes.index[genes["causes"] != ""]:
        causes[f"latent_{name}"] = latent[:, genes.index.get_loc(name)]
    return Tissue(config=config, genes=genes, causes=causes, latent=latent)
