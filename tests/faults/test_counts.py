"""Log-normalised values where counts are meant: refused where the counts are known, said elsewhere, remembered by models."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
from factories import SMALL_NETWORKS, paired_cells, small_gan

import sst
from sst.models import GAN, Registry

if TYPE_CHECKING:
    from pathlib import Path


def logged(*, keep: str | None = None) -> ad.AnnData:
    """As scanpy's tutorial leaves it: X normalised and logged, the counts in a layer (or nowhere)."""
    adata = paired_cells(60)
    counts = adata.X.copy()
    adata.X = counts.multiply(100 / counts.sum(axis=1)).log1p().tocsr()
    if keep == "raw":
        whole = ad.AnnData(counts, obs=adata.obs[[]], var=adata.var)
        adata.raw = whole
    elif keep is not None:
        adata.layers[keep] = counts
    return adata


CALLS: dict[str, Any] = {
    "train_gan": {},
    "train_clip": {},
    "edit": {"method": "mean"},
    "edit_controls": {},
    "confound_report": {},
    "generate": {"model": "gan"},
    "evaluate": {"model": "gan"},
    "rank_genes_effect": {"model": "gan"},
    "dose_response": {"genes": ["g1"], "model": "gan"},
}


@pytest.mark.parametrize("call", CALLS)
def test_logged_values_are_refused_where_a_layer_has_counts(call: str) -> None:
    adata = logged(keep="counts")
    options = {k: small_gan(paired_cells(60)) if v == "gan" and k == "model" else v for k, v in CALLS[call].items()}
    with pytest.raises(ValueError, match=r"X holds fractions.*pass layer='counts'"):
        getattr(sst.tl, call)(adata, **options)


def test_the_layer_that_holds_counts_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adata = logged(keep="counts")
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.edit(adata, ["g1"], method="mean", model=None, layer="counts")
        sst.tl.edit(adata, ["g2"], method="mean", model=None, layer="edited", key_added="more")  # fractions by right
    assert "fractions" not in caplog.text


@pytest.mark.parametrize(("keep", "hint"), [(None, "keep the counts in a layer"), ("raw", "adata.raw holds counts")])
def test_logged_values_are_said_where_there_is_nothing_else(keep, hint, caplog: pytest.LogCaptureFixture) -> None:
    adata = logged(keep=keep)
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.edit(adata, ["g1"], method="mean", model=None)
    assert "X holds fractions" in caplog.text
    assert hint in caplog.text


def test_a_layer_that_is_named_is_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    adata = logged(keep="counts")
    adata.layers["log"] = adata.X.copy()
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.edit(adata, ["g1"], method="mean", model=None, layer="log")
    assert "layers['log'] holds fractions" in caplog.text


@pytest.mark.parametrize("layer", [None, "counts"])
def test_a_model_knows_what_it_was_trained_on(tmp_path: Path, layer: str | None, caplog) -> None:
    adata = paired_cells(60) if layer is None else logged(keep="counts")
    config = sst.train.GANConfig.preset("demo").replace(**SMALL_NETWORKS, fit__batch_size=8, fit__iterations=2)
    sst.tl.train_gan(adata, config=config, out=tmp_path / "gan", device="cpu", layer=layer)
    gan = GAN.load(tmp_path / "gan")
    assert gan.registry.expression == {"layer": layer or "X", "whole": True}
    other = logged()
    with caplog.at_level(logging.WARNING, logger="sst"):
        sst.tl.generate(other, model=gan)
    assert "trained on whole numbers" in caplog.text


def test_a_registry_of_before_is_read() -> None:
    values = Registry.from_adata(paired_cells(20)).to_dict()
    del values["expression"]
    values["version"] = 2
    assert Registry.from_dict(values).expression == {}


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (None, ValueError, "X is empty"),
        (np.full((60, 5), "a"), TypeError, "numbers are needed"),
        (np.full((60, 5), None, dtype=object), TypeError, "numbers are needed"),
        (np.full((60, 5), 1j), TypeError, "complex"),
    ],
)
@pytest.mark.parametrize("call", ["edit", "train_gan", "confound_report", "edit_controls"])
def test_what_is_no_expression_is_named(X: Any, error: type, match: str, call: str) -> None:
    adata = paired_cells(60)
    adata.X = X
    with pytest.raises(error, match=match):
        getattr(sst.tl, call)(adata)
