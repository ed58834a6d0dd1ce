from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import sst
from sst.cli import run

mpl.use("Agg")


@pytest.mark.slow
def test_evaluate_writes_tables_figures_and_a_report(tmp_path, capsys):
    adata = sst.datasets.simulate_tissue(n_cells=90, n_genes=20, fovs=3, seed=0).to_adata(64, 16)
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov", test_size=0.3, seed=0)
    model = sst.tl.train_gan(adata, preset="demo", iterations=2, out=tmp_path / "gan", device="cpu")
    assert model.registry.kind == "gan"
    del adata.uns["sst"]
    adata.write_zarr(tmp_path / "cells.zarr")
    out = tmp_path / "report"
    args = ["--quiet", "evaluate", str(tmp_path / "cells.zarr"), "--model", str(tmp_path / "gan"), "--out", str(out)]
    args += ["--genes", "HLA-A", "B2M", "--subset", "cell_type in ['Hep.1', 'tumor_1']", "--repeats", "2"]
    assert run(args) == 0
    table = pd.read_csv(out / "distances.csv")
    assert set(table["edit"]) == {"none", "chosen", "all", "random"}
    assert set(table["cells"]) == {"all", "subset"}
    assert np.isfinite(table["mean"]).all()
    html = (out / "report.html").read_text()
    for word in ("Distances", "What changed", "Cells: generated", "near 0: it is the genes"):
        assert word in html
    assert (out / "figures" / "cells-generated-1.pdf").stat().st_size > 0
    assert run([*args, "--seed", "3"]) == 2
    assert "holds another evaluation" in capsys.readouterr().err
    assert run([*args[:2], str(tmp_path / "none.zarr"), *args[3:]]) == 2
    assert "there is no such file" in capsys.readouterr().err
