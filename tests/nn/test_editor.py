"""The editor's network: no edit is no change; sizes; gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sst.nn import CellEditor
from sst.nn._body import find_body
from sst.nn._editor import Effects, _Modulation, warp
from sst.nn._traits import TRAITS, traits

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
    for head in (*editor.flows, editor.gain, editor.detail, editor.residual):
        torch.nn.init.normal_(head.weight, std=0.2)
    editor.set_response(torch.randn(3, len(TRAITS)), torch.ones(len(TRAITS)), torch.ones(len(TRAITS)))
    images, own, target = (t.double() for t in cells(2, 16, 1, 3))
    direction = torch.randn_like(images)

    def along(c):
        return (editor(images, own, c) * direction).sum()

    assert torch.autograd.gradcheck(along, (target.requires_grad_(),), eps=1e-7, atol=1e-3)


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


def oval(side=64, long=0.28, short=0.2, angle=0.5, x0=0.05, y0=-0.04, grain=0.0):
    """A nucleus that lies askew, neighbours beyond 0.9, (side, side), and the square of the distance in its radii."""
    y, x = torch.meshgrid(*[(torch.arange(side) * 2 + 1) / side - 1] * 2, indexing="ij")
    cos, sin = torch.as_tensor(angle).cos(), torch.as_tensor(angle).sin()
    u, v = cos * (x - x0) + sin * (y - y0), -sin * (x - x0) + cos * (y - y0)
    square = (u / long).square() + (v / short).square()
    edge = torch.sigmoid((1 - square.sqrt()) * 16) * (1 + grain * torch.sin(15 * x) * torch.sin(15 * y))
    return 0.1 + 0.5 * edge + torch.sigmoid((x.square() + y.square() - 0.9) * 60) * 0.4, square


def test_the_body_is_found_where_it_lies():
    image, square = oval()
    images = torch.stack([torch.rand(64, 64), image])[None]
    body = find_body(images, torch.tensor([False, True]))
    centre = -body.offset[0, :, 0, 0] + torch.tensor([-1.0, -1.0]) * 63 / 64
    assert centre.tolist() == pytest.approx([0.05, -0.04], abs=0.02)
    assert body.axis[0].tolist() == pytest.approx(
        [torch.tensor(1.0).cos().item(), torch.tensor(1.0).sin().item()], abs=0.1
    )
    outline = body.square[0][(square > 0.98) & (square < 1.02)]
    assert 0.6 < outline.min() < outline.max() < 1.1  # its edge is soft: what is bright ends a little farther out
    middle = find_body(images, torch.tensor([False, False]))  # of no stain: the middle of the crop
    assert middle.offset[0, :, 32, 32].tolist() == pytest.approx([1 / 64, 1 / 64], abs=1e-3)


def test_the_body_grows_and_stretches_and_the_margin_stays():
    image, square = oval()
    images, none = image[None, None], torch.zeros(1, 1)
    body = find_body(images, torch.tensor([True]))
    names = {name: k for k, name in enumerate(TRAITS)}
    for zoom, stretch in ((0.15, 0.0), (-0.15, 0.0), (0.0, 0.1), (0.0, -0.1)):
        moved = warp(images, body.flow(none + zoom, none + stretch))
        change = (traits(moved) - traits(images))[0]
        grown = (moved[0, 0] > 0.35)[square < 4].sum() / (image > 0.35)[square < 4].sum()
        assert grown.log().item() == pytest.approx(2 * zoom, abs=0.04)
        assert change[names["stretch"]].item() == pytest.approx(stretch, abs=0.035)
        margin = square > 2.4**2
        torch.testing.assert_close(moved[0, 0][margin], image[margin], atol=0.02, rtol=0)


def test_a_stain_that_does_not_show_the_body_moves_inside_it_alone():
    image, square = oval()
    ring = torch.exp(-((square.sqrt() - 2.0) ** 2) * 30)[None, None]
    images = torch.cat([ring, image[None, None]], dim=1)
    body = find_body(images, torch.tensor([False, True]))
    moved = warp(images, body.flow(torch.full((1, 2), 0.15), torch.zeros(1, 2)))
    assert (moved - images)[0, 0].abs().max() < 0.1
    assert (moved - images)[0, 1].abs().max() > 0.15


def test_an_untrained_editor_does_what_the_regression_expects():
    """Genes that change traits as a gain, a growth, a stretch or a contrast would are drawn as that."""
    torch.manual_seed(0)
    many = [oval(32, 0.26 + 0.1 * torch.rand(()), 0.22, 6 * torch.rand(()), grain=0.2)[0] for _ in range(40)]
    nuclei = torch.stack(many)
    images = torch.stack([0.7 - nuclei, nuclei], dim=1) + 0.01 * torch.randn(40, 2, 32, 32)
    images[:, :, :4, :4] = 0.02  # no stain
    editor = made(32, 2, genes=4)
    for head in (*editor.flows, editor.gain, editor.detail, editor.residual):
        torch.nn.init.zeros_(head.weight)
    editor.set_statistics(torch.zeros(4), torch.ones(4))
    n = 2 * len(TRAITS)
    weights = torch.ones(n)
    weights[[2 * TRAITS.index(t) for t in ("wide", "narrow", "stretch", "contrast")]] = (
        0  # the first stain is dark there
    )
    editor.set_response(torch.zeros(4, n), torch.full((n,), 0.3), weights)
    editor.calibrate(images)
    assert editor.centred.tolist() == [False, True]
    assert editor.floor.tolist() == pytest.approx([0.02, 0.02], abs=0.01)
    asked = torch.zeros(4, 4, 2)
    for gene, (lever, channels) in enumerate(((0, [0]), (1, [0, 1]), (2, [0, 1]), (3, [1]))):
        asked[gene, lever, channels] = 0.05
    drawn = [editor.drawn(images, Effects.of_whole(whole.expand(40, 4, 2), 32)) for whole in asked]
    slopes = torch.stack([(traits(d) - traits(images)).mean(dim=0) for d in drawn]) / 0.3
    editor.set_response(slopes / torch.tensor(1.5).log(), editor.spread, weights)
    own = torch.full((40, 4), 3.0)
    for gene, picture in enumerate(drawn):
        target = own.clone()
        target[:, gene] = 5.0  # log(1 + counts) grows by log 1.5
        change, wanted = (editor(images * 2 - 1, own, target) + 1) / 2 - images, picture - images
        assert (change - wanted).square().mean() < 0.2 * wanted.square().mean()


def test_a_cell_and_its_surroundings_are_brightened_apart():
    images = 0.2 + 0.4 * torch.rand(20, 1, 32, 32, generator=torch.manual_seed(0))
    images[:, :, 26:] = 0  # no stain
    editor = made(32, 1, genes=2, around=True)
    for head in (*editor.flows, editor.gain, editor.detail, editor.residual):
        torch.nn.init.zeros_(head.weight)
    editor.set_statistics(torch.zeros(2), torch.ones(2))
    names = (*TRAITS, "around")
    slopes, weights = torch.zeros(2, len(names)), torch.ones(len(names))
    for name in ("wide", "narrow", "stretch", "contrast"):
        weights[names.index(name)] = 0  # no stain shows a body
    slopes[0, [names.index(t) for t in ("mean", "core", "power")]] = 0.5
    slopes[1, names.index("around")] = 0.5
    editor.set_response(slopes, torch.ones(len(names)), weights)
    editor.calibrate(images)
    assert not editor.levers[:, 1:4].any()
    own = torch.full((20, 2), 3.0)
    middle, margin = (slice(None), 0, slice(12, 20), slice(12, 20)), (slice(None), 0, slice(0, 3))
    for gene, (here, there) in enumerate(((middle, margin), (margin, middle))):
        target = own.clone()
        target[:, gene] = 5.0
        out = (editor(images * 2 - 1, own, target) + 1) / 2
        assert (out[here].mean() / images[here].mean()).log().item() > 0.12
        assert abs((out[there].mean() / images[there].mean()).log().item()) < 0.03


def test_what_a_regression_expects_is_linear_in_the_change():
    editor = made(channels=1)
    editor.set_statistics(torch.zeros(GENES), torch.ones(GENES))
    known = len(TRAITS)
    slopes = torch.zeros(GENES, known)
    slopes[2, 0] = 0.5
    editor.set_response(slopes, torch.ones(known), torch.ones(known))
    own, target = torch.full((1, GENES), 3.0), torch.full((1, GENES), 3.0)
    target[0, 2] = 7.0
    expected = editor.expected(own, target)
    assert expected[0].tolist() == pytest.approx([0.5 * torch.tensor(2.0).log().item(), *[0] * (known - 1)])
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
