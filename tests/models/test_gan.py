"""The trained generator: saved, loaded, applied, found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parent))
from factories import small_gan
from test_registry import paired

from sst.models import GAN, load, remember, resolve
from sst.models._gan import build_generator
from sst.models._inputs import cell_latents


def make(seed: int = 0) -> GAN:
    return small_gan(paired(), genes_act=100, noise=0.3, seed=seed)


def test_round_trip(tmp_path):
    gan, adata = make(), paired()
    gan.save(tmp_path / "gan")
    assert {p.name for p in (tmp_path / "gan").iterdir()} == {
        "config.json", "weights.safetensors", "registry.json", "history.csv",
    }  # fmt: skip
    for again in (GAN.load(tmp_path / "gan"), load(tmp_path / "gan", device="cpu")):
        assert isinstance(again, GAN)
        assert again.hash == gan.hash
        assert again.registry == gan.registry
        assert again.config == gan.config
        pd.testing.assert_frame_equal(again.history, gan.history)
        np.testing.assert_array_equal(again.generate(adata), gan.generate(adata))


def test_saving_does_not_destroy_another_model(tmp_path):
    gan, other = make(), make(seed=1)
    gan.save(tmp_path)
    gan.save(tmp_path)  # the same model again is fine
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(tmp_path)
    assert GAN.load(tmp_path).hash == gan.hash
    other.save(tmp_path, overwrite=True)
    assert GAN.load(tmp_path).hash == other.hash


def test_damaged_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a model's folder"):
        load(tmp_path / "none")
    make().save(tmp_path / "a")
    make(seed=1).save(tmp_path / "b")
    (tmp_path / "b" / "weights.safetensors").replace(tmp_path / "a" / "weights.safetensors")
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "a")
    about = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(about | {"kind": "vae", "seal": ""}))
    with pytest.raises(ValueError, match="kind='vae'"):
        load(tmp_path / "a")


def test_images_depend_on_name_seed_and_genes_alone():
    gan, adata = make(), paired(12)
    images = gan.generate(adata, seed=3)
    assert images.shape == (12, 2, 8, 8)
    assert images.dtype == np.uint8
    order = np.random.default_rng(0).permutation(12)
    close = lambda a, b: np.abs(a.astype(int) - b).max() <= 1
    assert close(gan.generate(adata[order].copy(), seed=3, batch_size=5), images[order])
    assert close(gan.generate(adata[:, ["C", "A", "B"]].copy(), seed=3), images)
    assert not close(gan.generate(adata, seed=4), images)
    edited = adata.copy()
    edited.layers["edited"] = edited.X * np.array([[3, 1, 1]], dtype=np.float32)
    edited.layers["same"] = edited.X.copy()
    assert close(gan.generate(edited, layer="same", seed=3), images)
    assert not close(gan.generate(edited, layer="edited", seed=3), images)
    many = gan.generate(adata, seed=3, n_samples=3)
    assert many.shape == (12, 3, 2, 8, 8)
    assert close(many[:, 0], images)
    assert not close(many[:, 1], images)
    torch.testing.assert_close(cell_latents(["a", "b"], 4, 0)[1], cell_latents(["b"], 4, 0)[0])


def test_arrays_and_sparse_matrices_are_rows_by_number():
    gan, counts = make(), np.random.default_rng(0).poisson(4.0, (5, 3))
    dense, thin = gan.generate(counts), gan.generate(sparse.csr_matrix(counts))
    np.testing.assert_array_equal(dense, thin)
    adata = AnnData(counts.astype(np.float32))
    adata.var_names = ["A", "B", "C"]  # obs_names are "0", "1", ...; no crops are needed to generate
    np.testing.assert_array_equal(gan.generate(adata), dense)


@pytest.mark.parametrize(
    ("data", "kwargs", "error", "match"),
    [
        (np.ones((2, 4)), {}, ValueError, "3 genes"),
        (np.array([[1.0, -1.0, 0.0]]), {}, ValueError, "cell '0' holds negative"),
        (np.array([[1.0, np.nan, 0.0]]), {}, ValueError, "missing"),
        (np.ones((2, 3)), {"layer": "edited"}, TypeError, "needs an AnnData"),
        (np.ones((2, 3)), {"n_samples": 0}, ValueError, "n_samples=0"),
    ],
)
def test_wrong_input_is_named(data, kwargs, error, match):
    with pytest.raises(error, match=match):
        make().generate(data, **kwargs)


def test_models_of_an_object_are_found_again(tmp_path):
    adata, gan = paired(), make()
    with pytest.raises(KeyError, match="no image model"):
        resolve(adata, "last")
    gan.save(tmp_path / "one")
    remember(adata, "gan", tmp_path / "one")
    remember(adata, "clip", tmp_path / "elsewhere", image_model=False)
    adata.write_h5ad(tmp_path / "a.h5ad")
    import anndata

    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert resolve(again).hash == gan.hash
    assert resolve(again, "gan") is resolve(again, tmp_path / "one")
    assert resolve(again, gan) is gan
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        resolve(again, "clip")
    with pytest.raises(KeyError, match="Did you mean 'gan'"):
        resolve(again, "gam")
    other = make(seed=1)
    other.save(tmp_path / "one", overwrite=True)
    assert resolve(again).hash == other.hash  # a retrained model is not taken from the cache
    with pytest.raises(ValueError, match="a/b"):
        remember(adata, "a/b", tmp_path)


def test_training_goes_on_after_generating():
    gan = make()
    gan.generate(paired())  # what is cached meanwhile must not be inference tensors
    g = build_generator(gan.registry, gan.config)
    g(torch.randn(2, g.z_dim), torch.ones(2, 3)).square().mean().backward()
    assert g.const.grad is not None
