from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F

from sst.nn._clip import ClipTowers, ResNet50Backbone, SmallBackbone, adapt_first_convolution
from sst.nn._encoder import PixelEncoder, style_levels
from sst.nn._heads import StyleHeads, _HeadGroup
from sst.nn._inversion import Code
from sst.nn._perceptual import CosineDistance, MapDistance, as_rgb

if TYPE_CHECKING:
    from sst.nn._norm import Norm

SMALL = {"widths": (8, 8, 12, 16), "depths": (1, 1, 1, 1), "head_width": 8}


@pytest.mark.parametrize(("size", "styles"), [(32, 8), (48, 9), (64, 10), (128, 12), (256, 14)])
@pytest.mark.parametrize("residual", [False, True])
def test_encoder_gives_one_vector_per_style(size: int, styles: int, residual: bool) -> None:
    encoder = PixelEncoder(2, size, num_styles=styles, w_dim=24, residual=residual, **SMALL).eval()
    images = torch.rand(2, 2, size, size) * 2 - 1
    out = encoder(images).styles
    assert out.shape == (2, styles, 24)
    changed = images.clone()
    changed[:, :, 1, 1] += 1  # a corner pixel matters
    assert not torch.allclose(out, encoder(changed).styles)
    if residual:
        assert not torch.allclose(out, encoder(images, current=images).styles)


@pytest.mark.parametrize(("size", "share"), [(16, 1.0), (48, 0.5), (64, 0.25), (64, 1.0), (128, 0.25), (256, 1.0)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_maps_say_where(size: int, share: float, norm: Norm) -> None:
    sizes = [4, *(side for k in range(3, 9) for side in (2**k, 2**k) if 2**k <= share * size)]
    channels = [1 + k % 3 for k in range(len(sizes))]
    encoder = PixelEncoder(
        2, size, num_styles=6, w_dim=8, map_sizes=sizes, map_channels=channels, map_width=8, norm=norm, **SMALL
    ).eval()
    images = torch.rand(2, 2, size, size) * 2 - 1
    first = encoder(images)
    assert [tuple(m.shape) for m in first.maps] == [(2, s, s, c) for s, c in zip(sizes, channels, strict=True)]
    assert not any(m.any() for m in first.maps)  # an untrained head adds nothing
    torch.nn.init.normal_(encoder.maps.outs[-1].weight)
    last = encoder(images).maps[-1]
    assert last.std() > 0
    assert last.mean((1, 2)).abs().max() < 1e-5
    changed = images.clone()
    changed[:, :, -size // 4 :, -size // 4 :] = 1
    difference = (encoder(changed).maps[-1] - last).abs().mean((0, 3))
    if sizes[-1] >= 8:
        half = sizes[-1] // 2
        assert difference[half:, half:].mean() > difference[:half, :half].mean()


def test_codes_add_up() -> None:
    torch.manual_seed(0)
    a, b = (Code(torch.randn(3, 2, 4), (torch.randn(3, 4, 4, 1),)) for _ in range(2))
    for kind, x, y in zip(("styles", "map"), ((a + b) - b).tensors, a.tensors, strict=True):
        torch.testing.assert_close(x, y, msg=kind)
    whole = Code.cat([a[:1], a[1:]])
    assert all(torch.equal(x, y) for x, y in zip(whole.tensors, a.tensors, strict=True))


def test_coarse_to_fine_levels() -> None:
    assert style_levels(12) == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    for count in range(4, 15):
        levels = style_levels(count)
        assert len(levels) == count
        assert levels == sorted(levels)
        assert set(levels) == {0, 1, 2}


def test_grouped_heads_equal_heads_one_by_one() -> None:
    group = _HeadGroup(3, 5, 8, 6, 4).double()
    torch.nn.init.normal_(group.bias)
    x = torch.randn(2, 5, 8, 8, dtype=torch.float64)
    expected = []
    for h in range(3):
        rows = slice(h * 6, (h + 1) * 6)
        y = F.leaky_relu(F.conv2d(x, group.weight0[rows], group.biases[0][rows], stride=2, padding=1), 0.01)
        for weight, bias in zip(group.weights, list(group.biases)[1:], strict=True):
            y = F.leaky_relu(F.conv2d(y, weight[rows], bias[rows], stride=2, padding=1), 0.01)
        assert y.shape[2:] == (1, 1)
        expected.append(y.flatten(1) @ (group.linear[h] / 6**0.5).T + group.bias[h])
    torch.testing.assert_close(group(x), torch.stack(expected, 1))


def test_encoder_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="resolution=512"):
        PixelEncoder(1, 512, num_styles=16)
    with pytest.raises(ValueError, match="four stages"):
        PixelEncoder(1, 64, num_styles=10, widths=(8, 8, 8))
    with pytest.raises(ValueError, match="sorted indices"):
        StyleHeads(4, [4, 8], [1, 0])


def test_full_width_encoder_takes_the_names_of_resnet34() -> None:
    from torchvision.models import resnet34

    encoder = PixelEncoder(2, 128, num_styles=12)
    theirs = {k: v.shape for k, v in resnet34(weights=None).state_dict().items() if k.startswith("layer")}
    ours = {k: v.shape for k, v in encoder.state_dict().items() if k.startswith("layer")}
    assert ours == theirs


@pytest.mark.parametrize("backbone", ["small", "resnet50"])
def test_towers_map_pairs_into_one_space(backbone: str) -> None:
    towers = ClipTowers(7, 2, dim=16, backbone=backbone, widths=(8, 8)).eval()
    images, counts = torch.rand(3, 2, 40, 40), torch.randint(0, 9, (3, 7)).float()
    image, expression = towers(images, counts)
    assert image.shape == expression.shape == (3, 16)
    torch.testing.assert_close(image.square().sum(1), torch.full((3,), 16.0), rtol=1e-2, atol=0)  # layer norm
    with pytest.raises(ValueError, match="resnet5"):
        ClipTowers(7, 2, backbone="resnet5")


def test_transform_is_log1p_or_counts() -> None:
    towers = ClipTowers(3, 1, dim=4, widths=(4,), transform="counts").eval()
    counts = torch.tensor([[0.0, 3.0, 9.0]])
    towers_log = ClipTowers(3, 1, dim=4, widths=(4,), transform="log1p").eval()
    towers_log.load_state_dict(towers.state_dict())
    torch.testing.assert_close(towers.encode_expression(counts.log1p()), towers_log.encode_expression(counts))


def test_transform_standard_is_log1p_with_the_training_cells_statistics() -> None:
    plain = ClipTowers(3, 1, dim=4, widths=(4,), transform="log1p").eval()
    towers = ClipTowers(3, 1, dim=4, widths=(4,), transform="standard").eval()
    towers.load_state_dict(plain.state_dict(), strict=False)
    mean, std = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 2.0, 0.25])
    towers.set_statistics(mean, std)
    counts = torch.tensor([[0.0, 3.0, 9.0], [2.0, 0.0, 5.0]])
    expected = plain.expression_head((counts.log1p() - mean) / std)
    torch.testing.assert_close(towers.encode_expression(counts), expected)
    assert set(towers.state_dict()) > set(plain.state_dict())  # the statistics are saved with the weights


def test_first_convolution_answers_grey_alike() -> None:
    weight = torch.randn(4, 3, 7, 7)
    grey = torch.randn(1, 1, 9, 9)
    for channels in (1, 2, 5):
        ours = F.conv2d(grey.expand(-1, channels, -1, -1), adapt_first_convolution(weight, channels))
        torch.testing.assert_close(ours, F.conv2d(grey.expand(-1, 3, -1, -1), weight), rtol=1e-4, atol=1e-4)


def test_rgb_padding() -> None:
    one, two = torch.rand(2, 1, 4, 4), torch.rand(2, 2, 4, 4)
    assert torch.equal(as_rgb(one)[:, 2], one[:, 0])
    assert (as_rgb(two)[:, 0] == -1).all()
    assert torch.equal(as_rgb(two)[:, 1:], two)
    with pytest.raises(ValueError, match="got 4"):
        as_rgb(torch.rand(1, 4, 2, 2))


def test_perceptual_distances_vanish_at_home_and_grow() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 2, 32, 32) * 2 - 1
    near, far = images + 0.01 * torch.randn_like(images), torch.rand_like(images) * 2 - 1
    for network in (
        MapDistance(SmallBackbone(2, (8, 16)).eval()),
        CosineDistance(SmallBackbone(2, (8, 16)).eval(), rgb=False),
        CosineDistance(ResNet50Backbone(3).eval(), rgb=True),
    ):
        with torch.no_grad():
            targets = network.targets(images)
            home, close, away = (network(i, targets) for i in (images, near, far))
        assert home.shape == (3,)
        torch.testing.assert_close(home, torch.zeros(3), atol=1e-5, rtol=0)
        assert (close < away).all()
