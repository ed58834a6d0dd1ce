"""The editor's network: no edit is no change; sizes; gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sst.nn import CellEditor
from sst.nn._editor import _Modulation, warp

GENES = 12


def made(resolution=32, channels=2, genes=GENES, **options):
    torch.manual_seed(0)
    sizes = {"width": 4, "width_max": 8, "code_dim": 8} | options
    editor = CellEditor(genes, img_channels=channels, resolution=resolution, **sizes)
    known = editor.spread.shape[0]
    editor.set_response(torch.randn(genes, known) / 4, torch.ones(known), torch.ones(known))  # genes that act
    return editor


def cells(n=3, resolution=32, channels=2, genes=GENES):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (n, channels, resolution, resolution)).float() / 127.5 - 1
    return images, torch.poisson(torch.full((n, genes), 3.0)), torch.poisson(torch.full((n, genes), 3.0))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_no_edit_is_no_change_bit_for_bit(dtype):
    editor = made()
    editor.compute_dtype = dtype
    images, own, target = cells()
    target[1] = own[1]
    out = editor(images, own, target)
    assert torch.equal(out[1], images[1])
    assert not torch.equal(out[0], images[0])
    assert torch.equal(editor(images, own, own), images)


def test_small_edits_are_small():
    """What an edit does is linear and without bias in u: nothing jumps where an edit begins."""
    editor = made().double()
    images, own, target = (t.double() for t in cells())
    whole = (editor(images, own, target) - images).abs().mean()
    near = (editor(images, own, torch.lerp(own, target, 1e-6)) - images).abs().mean()
    assert near < 1e-4 * whole


def test_the_gradient_where_nothing_is_edited_is_that_of_a_first_change():
    editor = made().double()
    for head in editor.flows:
        torch.nn.init.zeros_(head.weight)  # linear interpolation has a kink where nothing moves
    with torch.no_grad():
        editor.whole.weight[editor.img_channels :] = 0
    images, own, target = (t.double() for t in cells())
    own = own + 1  # nor can a count fall below 0
    slope = torch.autograd.grad(editor(images, own, target.copy_(own).requires_grad_()).sum(), target)[0]
    ahead = torch.zeros_like(own)
    ahead[:, 2] = 1e-6
    assert slope[:, 2].abs().sum() > 0
    change = (editor(images, own, own + ahead) - images).sum((1, 2, 3)) / 1e-6
    torch.testing.assert_close(change, slope[:, 2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("resolution", "channels"), [(16, 1), (32, 5), (64, 3), (128, 2), (256, 1)])
def test_sizes(resolution, channels):
    editor = made(resolution, channels)
    images, own, target = cells(2, resolution, channels)
    out = editor(images, own, target)
    assert out.shape == images.shape
    assert out.isfinite().all()
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in editor.parameters())


def test_gradients_are_those_of_finite_differences():
    editor = made(16, 1, genes=3).double()
    for head in (*editor.flows, editor.gain, editor.detail, editor.residual, editor.whole):
        torch.nn.init.normal_(head.weight, std=0.2)
    editor.set_response(torch.randn(3, 6), torch.ones(6), torch.ones(6))
    images, own, target = (t.double() for t in cells(2, 16, 1, 3))
    direction = torch.randn_like(images)

    def along(x, c):
        return (editor(x, own, c) * direction).sum()

    assert torch.autograd.gradcheck(along, (images.requires_grad_(), target.requires_grad_()), eps=1e-7, atol=1e-3)


def test_modulation_is_group_norm_then_scale_and_shift():
    torch.manual_seed(0)
    layer = _Modulation(16, 5).double()
    x, code = torch.randn(3, 4, 6, 16).double() + 2, torch.randn(3, 5).double()
    scale, shift = layer.affine(code).chunk(2, dim=1)
    plain = F.group_norm(x.permute(0, 3, 1, 2), 8) * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(layer(x, code), F.leaky_relu(plain, 0.2).permute(0, 2, 3, 1))


def test_warp_moves_each_channel_by_pixels_and_reflects():
    images = torch.arange(32.0).view(1, 2, 4, 4)
    right = torch.zeros(1, 2, 2, 4, 4)
    right[:, 1, 0] = 2 / 4  # one pixel of four, the second channel alone
    moved = warp(images, right)
    torch.testing.assert_close(moved[:, 0], images[:, 0])
    torch.testing.assert_close(moved[:, 1, :, :3], images[:, 1, :, 1:])
    torch.testing.assert_close(moved[:, 1, :, 3], images[:, 1, :, 3])


def test_zoom_enlarges_the_middle_and_leaves_the_margin():
    y, x = torch.meshgrid(*[(torch.arange(64) * 2 + 1) / 64 - 1] * 2, indexing="ij")
    square = x.square() + y.square()
    disc = torch.sigmoid((0.3 - square.sqrt()) * 60) + torch.sigmoid(
        (square.sqrt() - 0.9) * 60
    )  # a nucleus, and neighbours
    images = disc.view(1, 1, 64, 64)
    zoom = torch.tensor([[1.2]]).log()
    larger = warp(images, torch.zeros(1, 1, 2, 64, 64), zoom)
    middle = square < 0.6**2
    assert float(larger[0, 0][middle].sum() / disc[middle].sum()) == pytest.approx(1.2**2, rel=0.03)
    torch.testing.assert_close(larger[0, 0][square > 0.85**2], disc[square > 0.85**2], atol=0.03, rtol=0)


def test_what_a_regression_expects_is_linear_in_the_change():
    editor = made(channels=1)
    editor.set_statistics(torch.zeros(GENES), torch.ones(GENES))
    slopes = torch.zeros(GENES, 6)
    slopes[2, 0] = 0.5
    editor.set_response(slopes, torch.ones(6), torch.ones(6))
    own, target = torch.full((1, GENES), 3.0), torch.full((1, GENES), 3.0)
    target[0, 2] = 7.0
    expected = editor.expected(own, target)
    assert expected[0].tolist() == pytest.approx([0.5 * torch.tensor(2.0).log().item(), 0, 0, 0, 0, 0])
    assert not editor.expected(own, own).any()


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="resolution"):
        made(48)
    with pytest.raises(ValueError, match="flow_size"):
        made(16, flow_size=16)
    editor = made()
    images, own, target = cells()
    with pytest.raises(ValueError, match=r"expected \(cells, 2, 32, 32\)"):
        editor(images[:, :1], own, target)
    with pytest.raises(ValueError, match="12 genes"):
        editor(images, own[:, :4], target[:, :4])
