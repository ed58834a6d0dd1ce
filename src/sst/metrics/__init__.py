"""Distances, statistics and image quality on plain arrays."""

from __future__ import annotations

from ._bootstrap_ci import Interval, bootstrap_ci
from ._compare_groups import Comparison, compare_groups
from ._d_eig import d_eig
from ._d_lea import d_lea
from ._frechet import frechet_distance
from ._kid import kid
from ._moments import Moments
from ._nucleus_features import nucleus_features
from ._precision_recall import PrecisionRecall, precision_recall
from ._psnr import psnr
from ._ssim import ssim

__all__ = [
    "Comparison",
    "Interval",
    "Moments",
    "PrecisionRecall",
    "bootstrap_ci",
    "compare_groups",
    "d_eig",
    "d_lea",
    "frechet_distance",
    "kid",
    "nucleus_features",
    "precision_recall",
    "psnr",
    "ssim",
]
