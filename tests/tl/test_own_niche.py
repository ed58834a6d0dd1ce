"""The two halves of a window: read apart, edited apart, written down, repeated."""

from __future__ import annotations

import numpy as np
import pytest
from factories import SMALL_NETWORKS
from scipy import sparse

import sst
from sst.models import Editor, split_rows
from sst.train import EditorConfig, GANConfig

TINY = EditorConfig.preset("demo").replace(
    editor__width=4, editor__width_max=8, editor__code_dim=8, discriminator__channel_base=64,
    discriminator__channel_max=8, discriminator__embed_dim=8, fit__batch_size=8, fit__iterations=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def cells():
    tissue = sst.datasets.simulate_tissue(n_cells=60, n_genes=16, fovs=1)
    adata = tissue.to_adata(size=64, output_size=16)
    sst.pp.rescale_intensity(adata, groupby="condition")
    adata.obs["split"] = np.where(np.arange(adata.n_obs) % 4, "train", "test")
    return adata


@pytest.fixture(scope="module")
def editor(cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("models")
    return sst.tl.train_editor(cells.copy(), inputs=("own", "niche"), config=TINY, out=out / "editor")


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def test_what_is_not_edited_stays_and_both_halves_add_up(cells):
    own = np.minimum(dense(cells.X), dense(cells.layers["segmented"]))
    niche = dense(cells.X) - own
    assert niche.sum() > 0
    for part, before, left in (("own", own, niche), ("niche", niche, own)):
        adata = cells.copy()
        sst.tl.edit(adata, genes=["HLA-A", "H2AZ1"], part=part, model=None)
        other = "niche" if part == "own" else "own"
        made = {half: dense(adata.layers[f"edited_{half}"]) for half in ("own", "niche")}
        np.testing.assert_array_equal(made[other], left.astype(np.float32))
        np.testing.assert_array_equal(made["own"] + made["niche"], dense(adata.layers["edited"]))
        changed = (made[part] != before).any(axis=0)
        assert set(adata.var_names[changed]) == {"HLA-A", "H2AZ1"}
        assert adata.uns["edited"]["params"]["part"] == part
        means = adata.uns["edited"]["report"]["genes"].set_index(["source", "gene"])
        normal = (adata.obs["condition"] == "normal").to_numpy()
        expected = before[normal][:, adata.var_names.get_loc("HLA-A")].mean()
        assert means.loc[("normal", "HLA-A"), "mean_source"] == pytest.approx(expected, rel=1e-5)


def test_edits_of_both_halves_follow_one_another_and_are_repeated(cells, tmp_path):
    import anndata as ad

    adata = cells.copy()
    sst.tl.edit(adata, genes=["HLA-A"], part="own", model=None)
    sst.tl.edit(adata, genes=["B2M"], part="niche", layer="edited", key_added="both", model=None)
    np.testing.assert_array_equal(dense(adata.layers["both_own"]), dense(adata.layers["edited_own"]))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    for key in ("edited", "both"):
        sst.tl.replay(again, key, key_added=f"{key}2")
        for suffix in ("", "_own", "_niche"):
            np.testing.assert_array_equal(dense(again.layers[f"{key}2{suffix}"]), dense(adata.layers[f"{key}{suffix}"]))
    sst.tl.edit(adata, genes=["HLA-A"], model=None)  # as one window: what is known of halves is of the edit before
    assert "edited_own" not in adata.layers
    with pytest.raises(ValueError, match="edited as one window"):
        sst.tl.edit(adata, genes=["HLA-A"], part="own", layer="edited", key_added="more", model=None)


def test_latent_expression_of_one_half(cells):
    adata = cells.copy()
    sst.tl.edit(adata, genes=["HLA-A"], part="own", latent=True, force=True, model=None)
    niche = dense(cells.X) - np.minimum(dense(cells.X), dense(cells.layers["segmented"]))
    np.testing.assert_array_equal(dense(adata.layers["edited_shown_niche"]), niche.astype(np.float32))
    whole = dense(adata.layers["edited_shown_own"]) + niche
    np.testing.assert_allclose(dense(adata.layers["edited_shown"]), whole, atol=1e-4)


def test_a_half_without_segmented_counts_is_an_error(cells):
    bare = cells.copy()
    del bare.layers["segmented"]
    with pytest.raises(KeyError, match="segmented"):
        sst.tl.edit(bare, genes=["HLA-A"], part="own", model=None)
    with pytest.raises(KeyError, match="segmented"):
        sst.tl.train_editor(bare, inputs=("own", "niche"), config=TINY)
    whole = cells.copy()
    whole.layers["segmented"] = whole.X.copy()  # expression="cell"
    with pytest.raises(ValueError, match="no count of 'niche'"):
        sst.tl.train_editor(whole, inputs=("own", "niche"), config=TINY)
    for wrong in (("own", "own"), (), ("window",)):
        with pytest.raises(ValueError, match="inputs"):
            sst.tl.train_gan(cells.copy(), inputs=wrong)


def test_shares_of_what_is_shown():
    counts = np.array([[4, 0, 2], [0, 0, 0]], np.float32)
    segmented = np.array([[1, 0, 5], [0, 0, 0]], np.float32)
    same = split_rows(counts, counts, segmented)
    np.testing.assert_array_equal(same["own"], [[1, 0, 2], [0, 0, 0]])
    np.testing.assert_array_equal(same["own"] + same["niche"], counts)
    shown = np.array([[8, 3, 0], [2, 0, 0]], np.float32)
    found = split_rows(shown, counts, segmented)
    np.testing.assert_allclose(found["own"], [[2, 1.5, 0], [0, 0, 0]])  # a quarter; the cell's half; nothing
    np.testing.assert_allclose(found["own"] + found["niche"], shown)


def test_an_editor_of_both_halves(cells, editor, tmp_path):
    assert editor.registry.inputs == ("own", "niche")
    assert editor.editor.n_genes == 2 * cells.n_vars
    again = Editor.load(editor.folder)
    assert again.registry.inputs == ("own", "niche")
    adata = cells.copy()
    for part in ("own", "niche", None):
        key = f"edit_{part}"
        sst.tl.edit(adata, genes=["HLA-A"], part=part, model=editor, key_added=key)
        halves = [dense(adata.layers[f"{key}_{half}"]) for half in editor.registry.inputs]
        np.testing.assert_allclose(sum(halves), dense(adata.layers[key]), atol=1e-5)
        own, niche = (dense(m) for m in (np.minimum(dense(cells.X), dense(cells.layers["segmented"])),) * 2)
        before = np.concatenate([own, dense(cells.X) - niche], axis=1)
        by_hand = editor.editor(*(_tensor(x) for x in (adata.obsm["crops"], before, np.concatenate(halves, axis=1))))
        from sst.train import to_uint8

        np.testing.assert_array_equal(adata.obsm[key], to_uint8(by_hand).numpy())
    assert (adata.obsm["edit_own"] != adata.obsm["edit_niche"]).any()
    turned = adata[:, ::-1].copy()
    np.testing.assert_array_equal(editor.generate(turned, layer="edit_own"), adata.obsm["edit_own"])
    np.testing.assert_array_equal(editor.generate(adata), adata.obsm["crops"])
    sst.tl.edit(adata, genes=["HLA-A"], part="own", model=editor, key_added="stored", store=tmp_path / "drawn.zarr")
    np.testing.assert_array_equal(np.asarray(adata.obsm["stored"]), adata.obsm["edit_own"])
    moved = sst.tl.transition(adata, layer="edit_own", model=editor, steps=3, cells=[0, 5])
    np.testing.assert_array_equal(moved.to_numpy()[-1], np.asarray(adata.obsm["edit_own"])[[0, 5]])
    np.testing.assert_array_equal(moved.to_numpy()[0], np.asarray(adata.obsm["crops"])[[0, 5]])


def _tensor(values):
    import torch

    from sst.train import to_unit

    made = torch.from_numpy(np.ascontiguousarray(values))
    return to_unit(made) if made.dtype == torch.uint8 else made.float()


def test_what_a_model_does_not_read_changes_nothing(cells, tmp_path):
    adata = cells.copy()
    editor = sst.tl.train_editor(adata, inputs=["own"], config=TINY, out=tmp_path / "own")
    sst.tl.edit(adata, part="niche", model=editor)
    assert np.abs(dense(adata.layers["edited"]) - dense(adata.X)).sum() > 0
    np.testing.assert_array_equal(adata.obsm["edited"], adata.obsm["crops"])


def test_measures_take_a_model_of_halves(cells, editor):
    adata = cells.copy()
    sst.tl.dose_response(adata, genes=["HLA-A"], factors=[0, 1], n_cells=8, model=editor)
    assert np.isfinite(adata.uns["dose_response"]["table"].select_dtypes("number").iloc[:, 0]).all()
    sst.tl.edit(adata, genes=["HLA-A"], model=editor)
    sst.tl.evaluate(adata, model=editor, genes=["HLA-A"], n_max=24, key_added="evaluated")
    with pytest.raises(ValueError, match="no one gradient"):
        sst.tl.rank_genes_effect(adata, model=editor, method="gradient", n_cells=8)


def test_a_gan_of_both_halves_and_no_inversion_of_it(cells, tmp_path):
    adata = cells.copy()
    config = GANConfig.preset("demo").replace(**SMALL_NETWORKS, fit__batch_size=8, fit__iterations=2)
    gan = sst.tl.train_gan(adata, inputs=("own", "niche"), config=config, out=tmp_path / "gan")
    sst.tl.edit(adata, genes=["HLA-A"], part="niche")
    halves = np.concatenate([dense(adata.layers[f"edited_{half}"]) for half in ("own", "niche")], axis=1)
    drawn = gan.generate(adata, layer="edited")
    np.testing.assert_array_equal(drawn, adata.obsm["edited"])
    with pytest.raises(ValueError, match=r"16 genes x \['own', 'niche'\]"):
        gan.generate(halves[:, :16])
    assert gan.generate(halves).shape == drawn.shape
    clip = sst.tl.train_clip(adata, preset="demo", iterations=1, out=tmp_path / "clip", embed=False)
    with pytest.raises(ValueError, match="an inversion the window as one"):
        sst.tl.train_inversion(adata, gan=gan, clip=clip)


def test_what_the_niche_does_lies_outside_the_cell():
    """Own genes act on this cell, the same genes of the niche on what is around it: by the regression that the editor hears genes through."""
    from sst.nn import AROUND, TRAITS, ExpressionTransform
    from sst.tl._training import log_statistics, paired_cells
    from sst.train import fit_response

    tissue = sst.datasets.simulate_tissue(n_cells=900, n_genes=20, fovs=3)
    adata = tissue.to_adata(size=96, output_size=32)
    sst.pp.rescale_intensity(adata, groupby="condition")
    rows = np.arange(adata.n_obs), np.arange(0)
    options = {"batch_key": "sample", "inputs": ("own", "niche")}
    cells = paired_cells(adata, TINY.data, rows, **options).cells
    transform = ExpressionTransform(2 * adata.n_vars)
    transform.set_statistics(*log_statistics(cells.expression))
    slopes = fit_response(cells, transform, 0, around=True)[0].numpy()
    dapi = slopes[:, 1::2]  # p own and p niche x traits
    own, niche = (dapi[adata.var_names.get_loc("H2AZ1") + k * adata.n_vars] for k in (0, 1))
    wide, around = TRAITS.index("wide"), len((*TRAITS, AROUND)) - 1
    assert own[wide] > 0.3
    assert own[around] < 0.1
    assert niche[around] > 0.3
    assert niche[wide] < 0.1


@pytest.mark.slow
def test_two_processes_read_both_halves(cells, tmp_path):
    adata = cells.copy()
    one = sst.tl.train_editor(adata, inputs=("own", "niche"), config=TINY, out=tmp_path / "one", device="cpu", seed=0)
    two = sst.tl.train_editor(
        adata, inputs=("own", "niche"), config=TINY, out=tmp_path / "two", device="cpu", seed=0, devices=2
    )
    assert two.registry.inputs == ("own", "niche")
    for name in (
        "transform.mean",
        "response",
    ):  # each process edits cells of its own in part: the weights are not the same
        np.testing.assert_array_equal(
            two.weights()[f"editor.{name}"].numpy(), one.weights()[f"editor.{name}"].numpy(), err_msg=name
        )


def test_a_recorded_edit_of_a_half_is_drawn_again(cells, editor):
    adata = cells.copy()
    sst.tl.edit(adata, genes=["HLA-A"], part="niche", model=editor)
    sst.tl.replay(adata, key_added="again", model=editor)
    np.testing.assert_array_equal(adata.obsm["again"], adata.obsm["edited"])
    sst.tl.edit(adata, genes=["HLA-A"], part="niche", model=editor, subset={"condition": ["normal"]}, key_added="some")
    normal = (adata.obs["condition"] == "normal").to_numpy()
    np.testing.assert_array_equal(adata.obsm["some"][normal], adata.obsm["edited"][normal])
    both = sst.models.Ensemble([editor, editor])
    sst.tl.edit(adata, genes=["HLA-A"], part="niche", model=both, key_added="mean")
    np.testing.assert_array_equal(adata.obsm["mean"], adata.obsm["edited"])
