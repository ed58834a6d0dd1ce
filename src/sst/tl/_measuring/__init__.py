"""What every measure shares: features of images, distances, the truth, held-out cells."""

from __future__ import annotations

from ._cellpose import CellposeMosaic
from ._channels import NucleusView, channel_names, find_nucleus_channel, get_images, image_keys
from ._distance import METRICS, distance, measure_distances
from ._features import (
    FeatureSample,
    check_groupby,
    held_out,
    iter_images,
    own_clip,
    resolve_features,
    row_reader,
    sample_features,
    without_slots,
)
from ._hashes import expression_hash, image_hash
from ._truth import FeatureReader, clusters_of, feature_rows, fields_of, image_row, read_rows, slot_before

__all__ = [
    "CellposeMosaic",
    "FeatureReader",
    "FeatureSample",
    "METRICS",
    "NucleusView",
    "channel_names",
    "check_groupby",
    "clusters_of",
    "distance",
    "expression_hash",
    "feature_rows",
    "fields_of",
    "find_nucleus_channel",
    "get_images",
    "held_out",
    "image_hash",
    "image_keys",
    "image_row",
    "iter_images",
    "measure_distances",
    "own_clip",
    "read_rows",
    "resolve_features",
    "row_reader",
    "sample_features",
    "slot_before",
    "without_slots",
]
