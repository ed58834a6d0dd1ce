from __future__ import annotations

import numpy as np
import pytest
import torch

from sst.metrics import FeatureSpace, Inception, NamedFunction, PixelPCA, lpips
from sst.metrics._inception import build_inception, prepare


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 2, 32, 32)).astype(np.uint8)


def test_pixel_pca_equals_scikit_learn(images):
    from sklearn.decomposition import PCA

    small = images.reshape(12, 2, 16, 2, 16, 2).mean((3, 5)).reshape(12, -1)
    space = PixelPCA(5).fit([images[:5], images[5:]])
    expected = PCA(5, svd_solver="full").fit_transform(small)
    expected /= np.sqrt(expected.var(axis=0, ddof=1).mean())
    got = space(images)
    np.testing.assert_allclose(np.abs(got), np.abs(expected), rtol=1e-6, atol=1e-6)
    assert space.name == "pixel-pca (5 components of 16 px, fitted on 12 images)"
    assert isinstance(space, FeatureSpace)
    again = PixelPCA(5).fit([images])(images)
    np.testing.assert_allclose(again, got, atol=1e-6)
    with pytest.raises(ValueError, match="not fitted"):
        PixelPCA()(images)


def test_pixel_pca_averages_over_pixels_it_must_cut():
    image = np.arange(9, dtype=np.uint8).reshape(1, 1, 1, 9).repeat(9, 2)
    small = PixelPCA(side=2)._small(image)
    # columns 0..4.5: (0 + 1 + 2 + 3 + 4 / 2) / 4.5
    assert small.reshape(2, 2)[0] == pytest.approx([8 / 4.5, 28 / 4.5])


def test_named_function(images):
    def brightness(x):
        return x.mean((2, 3))

    space = NamedFunction(brightness)
    assert space.name == "brightness"
    assert space(images).shape == (12, 2)
    with pytest.raises(ValueError, match="expected n x d"):
        NamedFunction(lambda x: x.mean(), name="bad")(images)
    with pytest.raises(TypeError, match="expected a function"):
        NamedFunction(3)


def test_resize_equals_pillow(images):
    from PIL import Image

    got = prepare(torch.as_tensor(images[:1]))[0].numpy() * 128 + 128
    assert np.all(got[0] == 0)  # the empty channel of a two-channel image
    for k in range(2):
        reference = Image.fromarray(images[0, k].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(got[k + 1], np.asarray(reference).clip(0, 255), atol=0.01)
    large = np.random.default_rng(1).integers(0, 256, (1, 1, 600, 600)).astype(np.uint8)
    reference = Image.fromarray(large[0, 0].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(
        prepare(torch.as_tensor(large))[0, 1].numpy() * 128 + 128, np.asarray(reference).clip(0, 255), atol=0.01
    )


def test_inception_from_a_local_file(images, tmp_path):
    torch.manual_seed(0)
    net = build_inception()
    torch.save(net.state_dict() | {"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "w.pth")
    space = Inception(tmp_path / "w.pth", device="cpu", batch_size=2)
    features = space(images[:3])
    assert features.shape == (3, 2048)
    assert "not the published weights" in space.name
    np.testing.assert_allclose(features[2:], space(images[2:3]), rtol=1e-3, atol=1e-4)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not the Inception of 2015"):
        Inception(tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match="no such file"):
        Inception(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="three channels"):
        space(np.zeros((1, 4, 32, 32), np.uint8))


def test_inception_pools_do_not_count_padding():
    """Against the block written out: each branch by torchvision's convolutions, the pools by hand."""
    torch.manual_seed(0)
    net = build_inception().eval()
    block = net.Mixed_5b

    def average(y):
        weight = torch.ones(1, 1, 3, 3)
        total = torch.nn.functional.conv2d(y.transpose(0, 1), weight, padding=1).transpose(0, 1)
        return total / torch.nn.functional.conv2d(torch.ones_like(y[:, :1]), weight, padding=1)

    seen = {}
    handle = block.branch_pool.register_forward_pre_hook(lambda _, args: seen.setdefault("pool", args[0]))
    last = {}
    handle7 = net.Mixed_7c.branch_pool.register_forward_pre_hook(lambda _, args: last.setdefault("pool", args[0]))
    inputs = {}
    hook5 = net.Mixed_5b.branch1x1.register_forward_pre_hook(lambda _, args: inputs.setdefault("5b", args[0]))
    hook7 = net.Mixed_7c.branch1x1.register_forward_pre_hook(lambda _, args: inputs.setdefault("7c", args[0]))
    with torch.inference_mode():
        net(torch.randn(1, 3, 107, 107))
    for h in (handle, handle7, hook5, hook7):
        h.remove()
    torch.testing.assert_close(seen["pool"], average(inputs["5b"]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last["pool"], torch.nn.functional.max_pool2d(inputs["7c"], 3, 1, 1))


def test_lpips_loads_local_alexnet(images, tmp_path):
    import lpips as package
    import torchvision

    torch.manual_seed(0)
    alex = torchvision.models.alexnet(weights=None)
    torch.save(alex.state_dict(), tmp_path / "alex.pth")
    other = np.roll(images, 3, axis=-1)
    got = lpips(images[:3], other[:3], weights=tmp_path / "alex.pth", device="cpu", batch_size=2)
    reference = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    for part in (
        reference.net.slice1,
        reference.net.slice2,
        reference.net.slice3,
        reference.net.slice4,
        reference.net.slice5,
    ):
        for index, layer in part.named_children():
            if isinstance(layer, torch.nn.Conv2d):
                layer.load_state_dict(alex.features[int(index)].state_dict())
    rgb = [torch.cat([-torch.ones(3, 1, 32, 32), torch.tensor(v[:3]) / 127.5 - 1], 1) for v in (images, other)]
    with torch.inference_mode():
        expected = reference(*rgb).flatten().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    each = lpips(images[:2], other[:2], weights=tmp_path / "alex.pth", device="cpu", per_channel=True)
    assert each.shape == (2, 2)
    assert lpips(images[:2], images[:2], weights=tmp_path / "alex.pth", device="cpu") == pytest.approx([0, 0], abs=1e-6)
    with pytest.raises(ValueError, match="8-bit"):
        lpips(images / 1.0, images / 1.0, weights=tmp_path / "alex.pth")
    with pytest.raises(FileNotFoundError, match="no such file"):
        lpips(images, images, weights=tmp_path / "no.pth")
