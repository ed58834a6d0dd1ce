"""Smooth traits of crops: what each of them tells, and that it has gradients."""

from __future__ import annotations

import pytest
import torch

from sst.nn import meaningful, traits


def nucleus(radius, level=0.6, ground=0.05, grain=0.0, side=32):
    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    disc = torch.sigmoid((radius - (x.square() + y.square()).sqrt()) * 3)
    checks = 1 + grain * (1 - 2 * ((torch.arange(side)[:, None] + torch.arange(side)) % 2))
    return (ground + (level - ground) * disc * checks).view(1, 1, side, side)


def test_each_trait_tells_its_own():
    base = traits(nucleus(5.0))[0]
    mean, core, wide, narrow, *_ = (traits(nucleus(6.0))[0] - base).tolist()
    for size in (wide, narrow):
        assert 0.2 < size < 0.4  # 0.36 is the area's; the middle of the crop ends softly
    assert mean > 0.15
    assert core == pytest.approx(0, abs=0.05)
    brighter = traits(nucleus(5.0) * 1.4)[0] - base
    assert brighter[0].item() == pytest.approx(torch.tensor(1.4).log().item(), abs=0.02)
    assert brighter[2:4].abs().max() < 0.02
    assert brighter[4].item() == pytest.approx(0, abs=0.01)
    assert brighter[5].item() == pytest.approx(0, abs=0.05)
    rough, rougher = (traits(nucleus(5.0, grain=g))[0] for g in (0.1, 0.2))
    assert (rougher - rough)[-2].item() > 0.3
    assert (rougher - rough)[-1].item() > 0.1
    assert (rougher - rough)[:4].abs().max() < 0.02


def test_size_hardly_depends_on_the_number_of_pixels():
    small, large = nucleus(5.0), nucleus(10.0, side=64)
    assert (traits(large)[0, 2:4] - traits(small)[0, 2:4]).abs().max() < 0.1


def test_gradients_are_finite_also_of_black_crops_and_below():
    for images in (torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), -0.2), torch.rand(2, 3, 128, 128)):
        images.requires_grad_(True)
        found = traits(images)
        assert found.shape == (2, 21)
        found.sum().backward()
        assert found.isfinite().all()
        assert images.grad.isfinite().all()


def test_size_means_something_where_the_core_is_brightest():
    hollow = 0.7 - nucleus(5.0)
    assert meaningful(torch.cat([nucleus(5.0), hollow])).tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5, 1]


def test_surroundings_are_told_apart_from_the_cell():
    images = torch.full((1, 2, 32, 32), 0.3)
    ring = torch.full((1, 2, 32, 32), 0.3)
    ring[:, 1, :4] = ring[:, 1, -4:] = 0.6  # neighbours, above and below
    change = traits(ring, around=True)[0] - traits(images, around=True)[0]
    assert torch.equal(traits(images, around=True)[:, :14], traits(images))
    assert change[14] == 0
    assert change[15] > 0.2
    assert change[[0, 1, 2, 3]].abs().max() < 0.01
    assert meaningful(images, around=True).shape == (16,)


def test_the_finest_detail_is_the_same_share_of_the_side_and_no_noise_of_finer_pixels():
    small = nucleus(5.0, grain=0.2)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert (traits(large)[0, -1] - traits(small)[0, -1]).abs() < 0.03
    noisy = large + 0.1 * (1 - 2 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2))
    assert (traits(noisy)[0, -1] - traits(large)[0, -1]).abs() < 0.01
