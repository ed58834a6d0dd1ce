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
from ._truth import FeatureReader, clusters_of, feature_rows, image_row, read_rows, slot_before

__all__ = [
    "CONTROLS",
    "CellposeMosaic",
    "Condition",
    "FeatureReader",
    "FeatureSample",
    "Folder",
    "METRICS",
    "Reals",
    "channel_names",
    "check_groupby",
    "clusters_of",
    "conditions_of",
    "feature_rows",
    "find_nucleus_channel",
    "gene_sets",
    "get_images",
    "hash_of",
    "held_out",
    "image_keys",
    "image_models",
    "image_row",
    "iter_images",
    "maker",
    "measure_condition",
    "measure_distances",
    "own_clip",
    "read_rows",
    "resolve_features",
    "row_reader",
    "sample_features",
    "slot_before",
    "summarise_distances",
    "summarise_measures",
    "summarise_quality",
    "without_slots",
]
