"""``tl.generate`` with an editor that turns other real cells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from factories import paired_cells, small_gan

from sst.models import Editor, Registry, build_editor
from sst.tl import generate
from sst.train import EditorConfig


def small_editor(adata, *, acts=True):
    config = EditorConfig.preset("demo").replace(editor__width=8, editor__code_dim=8)
    registry = Registry.from_adata(adata, groupby="condition", kind="editor")
    torch.manual_seed(0)
    network = build_editor(registry, config)
    if acts:
        with torch.no_grad():
            network.levers.normal_(std=0.5)
            network.response.normal_()  # genes that act
    return Editor(registry, config, network)


def symmetries(crop):
    return [np.rot90(x, k, axes=(1, 2)) for x in (crop, crop[:, :, ::-1]) for k in range(4)]


def test_another_training_cell_turned_to_the_expression():
    adata = paired_cells(40, side=16)
    editor = small_editor(adata)
    generate(adata, model=editor, sources="train", key_added="drawn")
    source = adata.obs["drawn_source"]
    assert (adata.obs.loc[source, "split"] == "train").all()
    assert (source != adata.obs_names).all()
    assert source.nunique() > 10
    params = adata.uns["drawn"]["params"]
    assert params["sources"] == "train"
    assert params["model_kind"] == "editor"

    images, rows = editor.draw(adata, adata[adata.obs["split"] == "train"], progress=False)
    np.testing.assert_array_equal(images[:, 0], adata.obsm["drawn"])
    train = adata[adata.obs["split"] == "train"]
    for cell in range(0, 40, 7):
        real = train[rows[cell, 0]]
        target, own = adata.X[cell].toarray(), real.X.toarray()
        turned = [np.ascontiguousarray(t) for t in symmetries(real.obsm["crops"][0])]
        made = [editor._edit(*map(torch.from_numpy, (t[None], own, target)))[0] for t in turned]
        assert min(np.abs(m.astype(int) - images[cell, 0]).max() for m in made) <= 1
        assert min(np.abs(t.astype(int) - images[cell, 0]).max() for t in turned) > 1  # no copy


def test_an_editor_that_changes_nothing_shows_the_cells_themselves():
    adata = paired_cells(30, side=16)
    editor = small_editor(adata, acts=False)
    for part in editor.networks.values():
        for parameter in part.parameters():
            parameter.data.zero_()
    images, rows = editor.draw(adata, adata, n_samples=3, progress=False)
    assert images.shape == (30, 3, 2, 16, 16)
    for cell, sample in itertools.product(range(30), range(3)):
        crop = adata.obsm["crops"][rows[cell, sample]]
        assert any(np.array_equal(images[cell, sample], turned) for turned in symmetries(crop))
    assert (rows != np.arange(30)[:, None]).all()


def test_the_nearest_cells_by_expression():
    adata = paired_cells(30, side=16)
    editor = small_editor(adata)
    _, rows = editor.draw(adata, adata, neighbors=1, progress=False)
    x = np.log1p(adata.X.toarray())
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    picked = distance[np.arange(30), rows[:, 0]]
    np.testing.assert_allclose(picked, distance.min(axis=1), rtol=1e-5)
    _, few = editor.draw(adata, adata, neighbors=3, n_samples=20, progress=False)
    for cell in range(30):
        assert set(few[cell]) <= set(np.argsort(distance[cell])[:3])


def test_a_choice_belongs_to_the_cell_and_the_seed():
    adata = paired_cells(30, side=16)
    editor = small_editor(adata)
    images, rows = editor.draw(adata, adata, progress=False)
    some = adata[[7, 3, 20]].copy()
    again, same = editor.draw(some, adata, batch_size=2, progress=False)
    np.testing.assert_array_equal(same, rows[[7, 3, 20]])
    np.testing.assert_allclose(again.astype(int), images[[7, 3, 20]], atol=1)
    _, other = editor.draw(adata, adata, seed=1, progress=False)
    assert (other != rows).mean() > 0.8


def test_what_cannot_be_drawn_is_named(tmp_path):
    adata = paired_cells(20, side=16)
    editor = small_editor(adata)
    with pytest.raises(TypeError, match="'gan' model turns no cells"):
        generate(adata, model=small_gan(adata), sources="train")
    with pytest.raises(ValueError, match="sources='test'"):
        generate(adata, model=editor, sources="test")
    with pytest.raises(ValueError, match="at least 2"):
        generate(adata, model=editor, sources=adata[:1].copy())
    with pytest.raises(ValueError, match="neighbors=20"):
        generate(adata, model=editor, sources=adata.copy(), neighbors=20)
    with pytest.raises(ValueError, match="sources with store"):
        generate(adata, model=editor, sources="train", store=tmp_path / "x.zarr")
