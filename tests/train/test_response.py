"""Regression of crops' traits on expression."""

from __future__ import annotations

import numpy as np
import torch

from sst.nn import ExpressionTransform
from sst.train import Cells, DataConfig, fit_response


def test_finds_the_gene_that_brightens():
    rng = np.random.default_rng(0)
    latent = rng.normal(0, 0.5, (800, 5))
    counts = rng.poisson(np.exp(3 + latent)).astype(np.float32)
    level = 60 * np.exp(0.6 * latent[:, 2])
    images = rng.normal(level[:, None, None, None], 2, (800, 1, 16, 16)).clip(0, 255).astype(np.uint8)
    transform = ExpressionTransform(5)
    logged = torch.from_numpy(counts).log1p()
    transform.set_statistics(logged.mean(0), logged.std(0))
    cells = Cells(images, counts, np.zeros(800, int), config=DataConfig())
    slopes, spread, weights = fit_response(cells, transform, seed=0)
    assert slopes.shape == (5, 7)
    assert spread.shape == weights.shape == (7,)
    assert float(weights[0]) == 1
    assert slopes[2, 0] > 0.8  # in standard deviations of the mean, per standard deviation of the gene
    assert slopes[[0, 1, 3, 4], 0].abs().max() < 0.1
    again, *_ = fit_response(cells, transform, seed=0)
    assert torch.equal(slopes, again)


def test_the_light_of_slides_is_no_genes_doing():
    """Gene 1 is higher on the bright slide and causes nothing; gene 2 brightens cells."""
    rng = np.random.default_rng(0)
    slides = np.repeat([0, 1], 500)
    latent = rng.normal(0, 0.3, (1000, 5))
    latent[:, 1] += 0.8 * slides
    counts = rng.poisson(np.exp(3 + latent)).astype(np.float32)
    level = 60 * np.exp(0.6 * latent[:, 2] + 0.5 * slides)
    images = rng.normal(level[:, None, None, None], 2, (1000, 1, 16, 16)).clip(0, 255).astype(np.uint8)
    transform = ExpressionTransform(5)
    logged = torch.from_numpy(counts).log1p()
    transform.set_statistics(logged.mean(0), logged.std(0))

    def light(**known):
        cells = Cells(images, counts, slides, config=DataConfig(), **known)
        slopes, spread, _ = fit_response(cells, transform, seed=0)
        return slopes[:, 0] * spread[0]

    taken, within = light(), light(slides=slides)
    assert taken[1] > 0.1
    assert abs(within[1]) < 0.01
    assert within[2] > 0.1
