"""Distances, statistics and image quality on plain arrays."""

from __future__ import annotations

from ._bootstrap_ci import Interval, bootstrap_ci
from ._compare_groups import Comparison, compare_groups
from ._d_eig import d_eig
from ._d_lea import d_lea
from ._feature_space import FeatureSpace, NamedFunction, PixelPCA
from ._frechet import frechet_distance
from ._inception import Inception
from ._kid import kid
from ._lpips import lpips
from ._moments import Moments
from ._nucleus_features import nucleus_features
from ._over_donors import DonorEffect, over_donors
from ._precision_recall import PrecisionRecall, precision_recall
from ._psnr import psnr
from ._recovered_effect import RecoveredEffect, recovered_effect
from ._ssim import ssim
from ._stain_densities import stain_densities

__all__ = [
    "Comparison",
    "DonorEffect",
    "FeatureSpace",
    "Inception",
    "Interval",
    "Moments",
    "NamedFunction",
    "PixelPCA",
    "PrecisionRecall",
    "RecoveredEffect",
    "bootstrap_ci",
    "compare_groups",
    "d_eig",
    "d_lea",
    "frechet_distance",
    "kid",
    "lpips",
    "nucleus_features",
    "over_donors",
    "precision_recall",
    "psnr",
    "recovered_effect",
    "ssim",
    "stain_densities",
]
