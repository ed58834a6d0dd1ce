"""What a model was trained on, and whether another object fits."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from factories import paired_cells

from sst.models import Registry


def paired(n=6, genes=("A", "B", "C"), **crops):
    adata = paired_cells(n, genes, **{"rate": 3.0, "size": 16, "pixel_size": 0.5, **crops})
    adata.X = adata.X.toarray()
    adata.uns["crops"]["limits"] = {
        "groupby": "condition", "low": {"normal": np.array([1.0, 2.0])}, "shared_low": np.array([1.0, 2.0]),
    }  # fmt: skip
    return adata


def test_describes_an_object_and_survives_json():
    registry = Registry.from_adata(paired(), groupby="condition")
    assert registry.genes == ("A", "B", "C")
    assert (registry.output_size, registry.crop_size, registry.groups) == (8, 16, ("normal", "tumor"))
    again = Registry.from_dict(json.loads(json.dumps(registry.to_dict())))
    assert again == registry
    with pytest.raises(ValueError, match="Update sst-editing"):
        Registry.from_dict(registry.to_dict() | {"version": 99})


def test_descriptions_of_the_first_version_are_read():
    registry = Registry.from_adata(paired(), groupby="condition")
    old = {k: v for k, v in registry.to_dict().items() if k != "notes"} | {"version": 1}
    assert Registry.from_dict(json.loads(json.dumps(old))) == registry
    noted = dataclasses.replace(registry, notes={"perceptual loss": "none"})
    assert Registry.from_dict(json.loads(json.dumps(noted.to_dict()))).notes == {"perceptual loss": "none"}


def test_other_order_is_indexed():
    registry = Registry.from_adata(paired())
    other = paired(genes=("C", "A", "B"))
    assert [str(other.var_names[i]) for i in registry.check(other)] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"genes": ("A", "B", "D")}, r"missing \['C'\]; unknown \['D'\]"),
        ({"genes": ("A", "B")}, r"missing \['C'\]"),
        ({"channels": ("marker", "PanCK")}, "PanCK"),
        ({"channels": ("DAPI",)}, "channels differ"),
        ({"side": 16}, "16, 16"),
        ({"size": 32}, "32 px"),
    ],
)
def test_differences_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        Registry.from_adata(paired()).check(paired(**change))


def test_missing_slots_are_named():
    adata = paired()
    with pytest.raises(KeyError, match="layer='edited'"):
        Registry.from_adata(adata).check(adata, "edited")
    with pytest.raises(KeyError, match="groupby='group'"):
        Registry.from_adata(adata, groupby="group")
    del adata.obsm["crops"]
    with pytest.raises(KeyError, match="crops"):
        Registry.from_adata(adata)
