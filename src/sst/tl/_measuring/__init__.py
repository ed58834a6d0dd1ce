"""What every measure shares: features, conditions, held-out cells."""

from __future__ import annotations

from ._cellpose import CellposeMosaic
from ._conditions import Reals, maker, measure_condition, summarise_distances, summarise_measures, summarise_quality
from ._distance import METRICS, measure_distances
from ._features import (
    FeatureSample,
    channel_names,
    check_groupby,
    find_nucleus_channel,
    get_images,
    image_keys,
    iter_images,
    own_clip,
    resolve_features,
    row_reader,
    sample_features,
    without_slots,
)
from ._plan import CONTROLS, Condition, Folder, conditions_of, gene_sets, hash_of, held_out, image_models

__all__ = [
    "CONTROLS",
    "CellposeMosaic",
    "Condition",
    "FeatureSample",
    "Folder",
    "METRICS",
    "Reals",
    "channel_names",
    "check_groupby",
    "conditions_of",
    "find_nucleus_channel",
    "gene_sets",
    "get_images",
    "hash_of",
    "held_out",
    "image_keys",
    "image_models",
    "iter_images",
    "maker",
    "measure_condition",
    "measure_distances",
    "own_clip",
    "resolve_features",
    "row_reader",
    "sample_features",
    "summarise_distances",
    "summarise_measures",
    "summarise_quality",
    "without_slots",
]
