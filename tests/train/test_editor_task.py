"""The editor's objective."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sst.nn import CellEditor, Discriminator
from sst.train import EditorConfig, editor_task, from_dict, to_dict
from sst.train._draws import Batch, Draws
from sst.train._editor import EditorLosses

GENES = 6


def parts(**changes):
    config = EditorConfig.preset("demo").replace(**changes)
    torch.manual_seed(0)
    editor = CellEditor(GENES, img_channels=1, resolution=16, width=4, code_dim=8)
    d = Discriminator(
        img_channels=1, resolution=16, n_labels=2, n_genes=GENES, channel_base=64, channel_max=8, embed_dim=8
    )
    return editor, d, config


def batch(n=64):
    torch.manual_seed(1)
    images = torch.rand(n, 1, 16, 16) * 2 - 1
    own, other = (torch.poisson(torch.full((n, GENES), 4.0)) + shift for shift in (0, 100))
    labels = torch.zeros(n, dtype=torch.long)
    return Batch(torch.arange(n), images, own, labels, other, labels + 1, Draws(torch.device("cpu"), n, 0, 1), 0)


def test_targets_are_other_cells_or_some_of_their_genes():
    editor, d, config = parts()
    cells = batch()
    to = EditorLosses(editor, d, config).targets(cells)
    whole = to.labels == 1
    assert whole.tolist() == [k < EditorLosses(editor, d, config).whole(cells) for k in range(64)]
    assert int(whole.sum()) == 43
    assert torch.equal(to.expression[whole], cells.other[whole])
    rest = to.expression[~whole]
    mixed = (rest == cells.other[~whole]) | (rest == cells.expression[~whole])
    assert mixed.all()
    assert 0.2 < float((rest == cells.other[~whole]).float().mean()) < 0.8
    all_whole = EditorLosses(editor, d, config.replace(loss__partial=0.0)).targets(cells)
    assert torch.equal(all_whole.expression, cells.other)
    assert (all_whole.labels == 1).all()


def test_phases_train_their_own_network_and_taper_ends():
    editor, d, config = parts()
    task = editor_task(editor, d, config)
    assert [(p.name, p.trains, p.interval) for p in task.phases] == [
        ("D", ("discriminator",), 1), ("R1", ("discriminator",), 16), ("E", ("editor",), 1),
    ]  # fmt: skip
    cells = batch(8)
    found = {p.name: p.loss(cells) for p in task.phases}
    assert {"real", "fake", "mismatched", "alignment"} < set(found["D"])
    assert {"moved", "cycle", "alignment", "response", "effort"} < set(found["E"])
    cells.progress = torch.ones(())
    end = task.phases[2].loss(cells)
    weights = config.loss
    expected = end["loss"] - sum(getattr(weights, name) * end[name] for name in ("cycle", "response", "effort"))
    assert float(expected.detach()) > 0  # what is left is the discriminator's word alone
    cells.progress = torch.zeros(())
    torch.manual_seed(0)
    weighed = EditorLosses(editor, d, config.replace(loss__taper=0.0)).editor(cells)
    assert float(weighed["loss"].detach()) > float((weighed["loss"] - 0.3 * weighed["alignment"]).detach())


def test_configuration_checks_itself():
    assert from_dict(EditorConfig, to_dict(EditorConfig.preset("demo"))) == EditorConfig.preset("demo")
    with pytest.raises(ValueError, match="sees them"):
        EditorConfig.preset("demo").replace(discriminator__conditioning="label", loss__mismatch=0.0)
    with pytest.raises(ValueError, match="partial"):
        dataclasses.replace(EditorConfig().loss, partial=2)
    with pytest.raises(ValueError, match="Possible"):
        EditorConfig.preset("paper")  # type: ignore[arg-type]


def test_rates_fall_over_the_last_part_of_the_run():
    editor, d, config = parts(loss__settle=0.5)
    task = editor_task(editor, d, config)
    rates = {}
    for done in (0.0, 0.5, 0.75, 1.0):
        task.rates(done)
        rates[done] = [o.param_groups[0]["lr"] for o in task.optimizers.values()]
    assert rates[0.0] == rates[0.5] == pytest.approx([0.001, 0.002 * 16 / 17])
    assert rates[0.75] == pytest.approx([r / 2 for r in rates[0.0]])
    assert rates[1.0] == [0.0, 0.0]
