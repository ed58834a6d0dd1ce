"""A model's folder: damaged, changed, monstrous, of an earlier version."""

from __future__ import annotations

import json
import logging
import resource

import pytest
from factories import paired_cells, small_gan

from sst.models import GAN, load
from sst.models._folder import CONFIG, REGISTRY, WEIGHTS


@pytest.fixture
def saved(tmp_path):
    return small_gan(paired_cells()).save(tmp_path / "gan")


def change(path, **changes):
    """Change a JSON file; ``a__b`` reaches inside, ``seal=""`` makes it one of an earlier version."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, last = name.split("__")
        inner = values
        for key in outer:
            inner = inner[key]
        inner[last] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("what", ["genes", "channels", "groups"])
def test_a_changed_registry_is_refused(saved, what):
    """Genes in another order fit the networks and mean something else."""
    values = json.loads((saved / REGISTRY).read_text())[what]
    change(saved / REGISTRY, **{what: values[::-1]})
    with pytest.raises(ValueError, match=r"gan is damaged: config\.json or registry\.json"):
        load(saved)


def test_a_changed_configuration_is_refused(saved):
    change(saved / CONFIG, config__generator__kernel_offset=0.5)
    with pytest.raises(ValueError, match="is not as it was when the model was saved"):
        load(saved)


def test_a_folder_of_an_earlier_version_is_read_and_says_what_is_not_covered(saved, caplog):
    about = json.loads((saved / CONFIG).read_text())
    expected = load(saved)
    (saved / CONFIG).write_text(json.dumps({k: v for k, v in about.items() if k != "seal"}))
    with caplog.at_level(logging.INFO, logger="sst"):
        old = load(saved)
    assert "its hash covers the weights alone" in caplog.text
    assert old.hash == expected.hash
    old.save(saved)
    assert json.loads((saved / CONFIG).read_text())["seal"] == about["seal"]


@pytest.mark.parametrize(
    ("name", "size"),
    [("z_dim", 10**9), ("z_dim", 60_000), ("channel_max", 10**9), ("gene_width", 65_000), ("mapping_layers", 10**9)],
)
def test_sizes_of_a_file_are_not_believed(saved, name, size):
    change(saved / CONFIG, seal="", **{f"config__generator__{name}": size, "config__generator__channel_base": 65_000})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"{name}={size}|does not hold the weights that config\.json describes"):
        load(saved, "cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_more_genes_than_weights(saved):
    change(saved / CONFIG, seal="")
    change(saved / REGISTRY, genes=[f"g{i}" for i in range(100_000)])
    with pytest.raises(ValueError, match=r"does not hold the weights .*gene|does not hold the weights"):
        load(saved)


@pytest.mark.parametrize("name", [CONFIG, REGISTRY, WEIGHTS])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x80\x02 half a file"])
def test_damaged_files_are_named(saved, name, content):
    (saved / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"gan"):
        load(saved)


def test_unknown_settings_are_named(saved):
    change(saved / CONFIG, seal="", config__invented=1)
    with pytest.raises(ValueError, match=r"config\.json does not describe a 'gan' model: .*invented"):
        GAN.load(saved)
