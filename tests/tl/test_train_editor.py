"""Train an editor, save, resume, apply; small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import sst
from sst.models import Editor
from sst.tl import train_editor
from sst.train import EditorConfig

TINY = EditorConfig.preset("demo").replace(
    editor__width=4, editor__width_max=8, editor__code_dim=8,
    discriminator__channel_base=64, discriminator__channel_max=8, discriminator__embed_dim=8,
    fit__batch_size=8, fit__log_every=5, fit__iterations=20, fit__evaluate_every=10, fit__checkpoint_every=10,
    fit__sample_every=10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def paired(n=80, genes=5, side=16, channels=2):
    """Cells whose brightness is set by the expression of gene 0."""
    rng = np.random.default_rng(0)
    rates = 5 * np.exp(rng.normal(0, 0.8, (n, genes)))
    counts = rng.poisson(rates).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(counts))
    adata.var_names = [f"g{i}" for i in range(genes)]
    adata.obs_names = [f"cell{i}" for i in range(n)]
    adata.obs["condition"] = np.array(["normal", "tumor"])[(counts[:, 0] > 5).astype(int)]
    adata.obs["condition"] = adata.obs["condition"].astype("category")
    adata.obs["split"] = np.where(np.arange(n) % 4, "train", "test")
    light = np.clip(20 * rates[:, 0], 0, 220)[:, None, None, None]
    adata.obsm["crops"] = np.clip(light + rng.normal(0, 8, (n, channels, side, side)), 0, 255).astype(np.uint8)
    names = ["marker", "DAPI", "a", "b", "c"][:channels]
    adata.uns["crops"] = {"channels": names, "size": side, "output_size": side, "pixel_size": 0.0}
    return adata


def test_train_save_read_back_apply(tmp_path):
    adata = paired()
    editor = train_editor(adata, config=TINY, out=tmp_path / "ed", device="cpu", seed=0)
    assert {"D/loss", "E/loss", "E/cycle", "distance", "diversity", "returned"} <= set(editor.history.columns)
    assert adata.uns["sst"]["last"] == "editor"
    back = sst.models.load(tmp_path / "ed")
    assert isinstance(back, Editor)
    assert back.hash == editor.hash
    adata.layers["other"] = adata.X[::-1].copy()
    edited = editor.generate(adata, layer="other")
    assert np.array_equal(edited, back.generate(adata, layer="other", batch_size=7))
    assert (edited != adata.obsm["crops"]).any()
    mixed = adata[:, ::-1].copy()  # genes in another order
    assert np.array_equal(edited, back.generate(mixed, layer="other"))


def test_unedited_cells_keep_their_image(tmp_path):
    adata = paired()
    editor = train_editor(adata, config=TINY, iterations=4, out=tmp_path / "ed", device="cpu", seed=0)
    crops = adata.obsm["crops"]
    assert np.array_equal(editor.generate(adata), crops)
    assert np.array_equal(editor.reconstruct(adata), crops)
    some = adata.X.toarray()
    some[::2, 1] += 3
    adata.layers["some"] = sparse.csr_matrix(some)
    edited = editor.generate(adata, layer="some")
    assert np.array_equal(edited[1::2], crops[1::2])


def test_a_resumed_run_is_the_undisturbed_one(tmp_path):
    even = TINY.replace(loss__taper=0.0, loss__settle=0.0)  # both follow the length of a run
    whole = train_editor(paired(), config=even, out=tmp_path / "whole", device="cpu", seed=3)
    half = train_editor(paired(), config=even, iterations=10, out=tmp_path / "parts", device="cpu", seed=3)
    with pytest.raises(FileExistsError, match="resume=True"):
        train_editor(paired(), config=even, out=tmp_path / "parts", device="cpu", seed=3, resume=False)
    rest = train_editor(paired(), config=even, out=tmp_path / "parts", device="cpu", seed=3)
    assert whole.hash == rest.hash != half.hash


@pytest.mark.parametrize("channels", [1, 3])
def test_other_numbers_of_channels(tmp_path, channels):
    adata = paired(40, channels=channels)
    editor = train_editor(adata, config=TINY, iterations=2, out=tmp_path / "ed", device="cpu", seed=0)
    assert editor.generate(adata).shape == adata.obsm["crops"].shape


def test_another_object_is_an_error_that_names_it(tmp_path):
    adata = paired(40)
    editor = train_editor(adata, config=TINY, iterations=2, out=tmp_path / "ed", device="cpu", seed=0)
    renamed = adata.copy()
    renamed.var_names = ["h0", *adata.var_names[1:]]
    with pytest.raises(ValueError, match=r"genes differ.*'g0'.*'h0'"):
        editor.generate(renamed)
    with pytest.raises(ValueError, match="channels differ"):
        editor.generate(paired(40, channels=1))
    with pytest.raises(TypeError, match="images="):
        editor.generate(adata.X.toarray())
    with pytest.raises(ValueError, match="n_samples"):
        editor.generate(adata, n_samples=2)
    with pytest.raises(ValueError, match="resolution"):
        train_editor(paired(40, side=24), config=TINY, out=tmp_path / "odd", device="cpu")
