from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from skimage.measure import label

import sst
from sst.tl._measuring._cellpose import CellposeMosaic, central


def _images(n=12, size=32, seed=0):
    """Discs of known radius."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = rng.uniform(4, 7, n)
    disc = 1 / (1 + np.exp(2 * (np.hypot(y, x)[None] - radius[:, None, None])))
    return np.stack([60 + 0 * disc, 20 + 150 * disc], axis=1).astype(np.uint8), np.pi * radius**2


def _adata(images):
    adata = ad.AnnData(np.ones((len(images), 3), np.float32))
    adata.obsm["crops"] = images
    adata.uns["crops"] = {"channels": ["CD298/B2M", "DAPI"], "pixel_size": 0.5}
    return adata


class _Thresholds:
    """Stands in for the network: connected components of a bright mosaic; remembers what it was shown."""

    def __init__(self):
        self.shapes = []

    def eval(self, image, **options):
        assert options["normalize"] is False
        self.shapes.append(image.shape)
        return label(image > 0.5), None, None


@pytest.fixture
def fake(monkeypatch, tmp_path):
    net = _Thresholds()
    monkeypatch.setattr(CellposeMosaic, "_load", staticmethod(lambda *_: net))
    weights = tmp_path / "w"
    weights.write_bytes(b"")
    return net, weights


def test_thousand_crops_in_few_calls_each_measured_alone(fake):
    net, weights = fake
    images, truth = _images(1000)
    adata = _adata(images)
    sst.tl.morphology(adata, backend="cellpose", weights=weights)
    assert len(net.shapes) == 2
    np.testing.assert_allclose(adata.obs["crops_nucleus_area"], truth / 4, rtol=0.12)
    assert adata.uns["crops_morphology"]["params"]["backend"] == "cellpose"


def test_blank_crops_and_neighbours(fake):
    _, weights = fake
    stain = np.zeros((3, 32, 32), np.uint8)
    stain[1, 12:20, 12:20] = 200
    stain[1, 0:5, 0:5] = 200  # a neighbour
    stain[2, :4, :4] = 200  # far from the centre
    masks = CellposeMosaic(weights, diameter=10)(stain)
    assert masks.sum(axis=(1, 2)).tolist() == [0, 64, 0]


def test_central_takes_the_nearest():
    labels = np.zeros((9, 9), int)
    labels[0:3, 4] = 5
    labels[5, 4] = 7
    assert central(labels, 0.25).sum() == 1
    assert not central(labels, 0.1).any()


def test_missing_weights():
    with pytest.raises(FileNotFoundError, match="no such file"):
        CellposeMosaic("nowhere", diameter=10)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_with_the_real_package(tmp_path):
    """A weights file with the last layer alone (the encoder is left random): shows the plumbing, not the quality."""
    import torch

    torch.manual_seed(0)
    size, out = 8, 3
    state = {
        "W2": torch.eye(out * size**2).reshape(out * size**2, out, size, size),
        "out.weight": torch.zeros(out * size**2, 256, 1, 1),
        "out.bias": torch.cat([torch.zeros(2 * size**2), torch.full((size**2,), 5.0)]),
    }
    torch.save(state, tmp_path / "cp")
    images, _ = _images(4)
    adata = _adata(images)
    sst.tl.morphology(adata, backend="cellpose", weights=tmp_path / "cp", diameter=30, device="cpu")
    counts = adata.uns["crops_morphology"]["counts"]
    assert sum(counts.values()) == 4
    assert adata.obs["crops_DAPI_window_mean"].notna().all()
