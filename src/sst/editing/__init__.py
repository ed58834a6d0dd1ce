"""Edits of expression: pure functions on arrays."""

from __future__ import annotations

from ._apply import Fitted, Options, apply, stream
from ._batches import Average, ByBatch, average
from ._block import EditStats
from ._controls import MeanInterval, bootstrap_mean, halves, matched_gene_sets, shuffled
from ._diagnostics import manifold_distances, moment_error
from ._from_layer import FromLayer
from ._gene_sets import read_gmt, resolve_genes
from ._get_operator import METHODS, Method, get_operator
from ._latent import RELIABLE, LatentExpression, Shift, counting_noise, fit_latent
from ._matrix import check_counts, iter_rows, rows_of, take_rows
from ._mean import Mean
from ._moments import Moments
from ._operators import LinearMap, Operator
from ._prescribed import Knockout, Scale, SetTo
from ._quantile import Histograms, Quantile
from ._scm import SCM, matching_map
from ._sparse_effects import sparse_effects
from ._transport import OT, transport_map

__all__ = [
    "Average",
    "ByBatch",
    "EditStats",
    "Fitted",
    "FromLayer",
    "Histograms",
    "Knockout",
    "LatentExpression",
    "LinearMap",
    "METHODS",
    "Mean",
    "MeanInterval",
    "Method",
    "Moments",
    "OT",
    "Operator",
    "Options",
    "Quantile",
    "RELIABLE",
    "SCM",
    "Scale",
    "SetTo",
    "Shift",
    "apply",
    "average",
    "bootstrap_mean",
    "check_counts",
    "counting_noise",
    "fit_latent",
    "get_operator",
    "halves",
    "iter_rows",
    "manifold_distances",
    "matched_gene_sets",
    "matching_map",
    "moment_error",
    "read_gmt",
    "resolve_genes",
    "rows_of",
    "shuffled",
    "sparse_effects",
    "stream",
    "take_rows",
    "transport_map",
]
