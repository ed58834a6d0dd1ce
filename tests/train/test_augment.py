"""Adaptive augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sst.train import Draws
from sst.train._augment import Augment, shift

CPU = torch.device("cpu")


def draws(size: int, seed: int = 0) -> Draws:
    made = Draws(CPU, size, 0, 1)
    made.generator.manual_seed(seed)
    return made


def test_probability_follows_the_discriminator():
    augment = Augment(0.6, images=1000, most=0.5)
    for _ in range(10):
        augment.follow(torch.tensor(0.9), 16)
    assert float(augment.probability) == pytest.approx(0.16)
    for _ in range(100):
        augment.follow(torch.tensor(0.9), 16)
    assert float(augment.probability) == pytest.approx(0.5)
    for _ in range(100):
        augment.follow(torch.tensor(0.1), 16)
    assert float(augment.probability) == 0


def test_nothing_changes_at_zero_and_something_above():
    images = torch.rand(64, 2, 8, 8) * 2 - 1
    augment = Augment(0.6)
    torch.testing.assert_close(augment(images, draws(64)), images)
    augment.probability.fill_(0.5)
    changed = (augment(images, draws(64)) != images).flatten(1).any(1)
    assert 0.7 < changed.float().mean() <= 1  # 1 - 0.5^4, less a few turns that turn nothing


def test_shift_equals_numpy():
    images = torch.rand(3, 2, 6, 6)
    by = torch.tensor([[1, 0], [-2, 2], [0, 0]])
    moved = shift(images, by, 2)
    for b, (dy, dx) in enumerate(by.tolist()):
        padded = np.pad(images[b].numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
        np.testing.assert_array_equal(moved[b].numpy(), padded[:, 2 - dy : 8 - dy, 2 - dx : 8 - dx])


def test_gradients_go_through_twice():
    augment = Augment(0.6)
    augment.probability.fill_(0.8)
    images = (torch.rand(4, 1, 8, 8, dtype=torch.float64) * 2 - 1).requires_grad_(True)

    def energy(x):
        return augment(x, draws(4)).pow(3).sum()

    (first,) = torch.autograd.grad(energy(images), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)
    step = 1e-6 * torch.randn_like(images)
    (moved,) = torch.autograd.grad(energy(images + step), images)
    expected = float(moved.square().sum() - first.square().sum())
    assert float((second * step).sum()) == pytest.approx(expected, rel=1e-2)
