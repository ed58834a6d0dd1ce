"""Gaps between groups over slides that are alike."""

from __future__ import annotations

import numpy as np
import pytest

import sst
from sst.tl._matched_slides import matched_slides


def study(light, biology, n=50, seed=0):
    """Cells of slides ``<group><number>`` of some light; a signal of light and biology, and one of light alone."""
    rng = np.random.default_rng(seed)
    names = np.repeat(list(light), n)
    shine = np.array([light[s] for s in names]) + rng.normal(0, 0.02, len(names))
    own = np.array([biology[s[0]] for s in names])
    groups = np.array([s[0] for s in names])
    return {
        "technical": shine[:, None],
        "measures": {"marker": shine + own, "counterstain": shine},
        "labels": groups,
        "donors": names,
        "groups": sorted(set(groups)),
    }


def test_what_is_light_goes_and_what_is_biology_stays():
    """One bright slide of t makes the groups' gap; the others have partners of like light."""
    light = {"n1": 0.0, "n2": 0.3, "n3": 0.6, "n4": 0.9, "t1": 0.05, "t2": 0.3, "t3": 0.65, "t4": 4.0}
    found = matched_slides(**study(light, {"n": 0.0, "t": 0.5})).set_index("measure")
    assert (found["n_pairs"] == 3).all()
    assert (found["matched_by"] == "light and depth").all()
    assert found.loc["counterstain", "gap"] == pytest.approx(0.8, abs=0.02)
    assert found.loc["counterstain", "gap_matched"] == pytest.approx(0.03, abs=0.05)
    assert abs(found.loc["counterstain", "remaining"]) < 0.1
    assert found.loc["marker", "gap_matched"] == pytest.approx(0.53, abs=0.05)
    assert found.loc["marker", "low"] > 0.3


def test_groups_of_another_light_have_no_pairs():
    light = {"n1": 0.0, "n2": 0.1, "n3": 0.2, "t1": 5.0, "t2": 5.1, "t3": 5.2}
    found = matched_slides(**study(light, {"n": 0.0, "t": 0.5}))
    assert (found["n_pairs"] == 0).all()
    assert found["gap_matched"].isna().all()


def test_donors_of_both_groups_are_their_own_pairs_and_three_groups_make_three():
    light = {f"{g}{k}": 2.0 * k for g in "ntx" for k in range(3)}
    given = study(light, {"n": 0.0, "t": 0.5, "x": 1.0})
    given["donors"] = np.array([d[1] for d in given["donors"]])
    found = matched_slides(**given).set_index(["source", "target", "measure"])
    assert len(found) == 6
    assert (found["matched_by"] == "donor").all()
    assert found.loc[("n", "x", "marker"), "gap_matched"] == pytest.approx(1, abs=0.02)
    assert found.loc[("n", "x", "marker"), "high"] - found.loc[("n", "x", "marker"), "low"] < 0.1


@pytest.mark.parametrize("preset", ["realistic", "confounded"])
def test_in_the_report_of_a_tissue(preset, tmp_path):
    adata = sst.datasets.simulate_tissue(60, 80, preset=preset, fovs=2, seed=0).to_adata()
    sst.tl.confound_report(adata, batch_key="donor")
    table = adata.uns["confound_report"]["matched"].set_index("measure")
    assert set(table.index) == {
        "depth",
        *(f"{a}, {b}" for a in ("background", "signal") for b in ("CD298/B2M", "DAPI")),
    }
    if preset == "confounded":
        assert table.loc["signal, DAPI", "n_pairs"] < 3  # hardly a slide of one group is as a slide of the other
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(KeyError, match="batch_key"):
        sst.tl.confound_report(adata, batch_key="slide")
