"""Memory and time of an edit with pictures on disk, by the number of cells.

python benchmarks/bench_whole_slides.py --cells 50000 200000        # edit with pictures of 32 px, and their morphology
python benchmarks/bench_whole_slides.py expression --cells 1000000  # open, edit expression, rescale, split, subset; 500 genes

Each number of cells runs in a process of its own, on cells drawn at random (what they look like does not matter here). The peak is
of resident memory over what the process had when models and libraries were loaded; pages of mapped files count while they are resident.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

_COMMON = """
import logging, resource, shutil, sys, threading, time
from pathlib import Path
import anndata as ad, numpy as np, pandas as pd, scipy.sparse as sp, torch
import sst
sst.settings.progress = False
torch.set_num_threads(1)
n, genes, side, folder = int(sys.argv[1]), int(sys.argv[2]), 32, Path(sys.argv[3])

def anonymous():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 2**20, int(fields["VmRSS"].split()[0]) / 2**20

class Peak:
    def __init__(self):
        self.top, self.go = [0.0, 0.0], True
        self.start = anonymous()
        threading.Thread(target=self.watch, daemon=True).start()
    def watch(self):
        while self.go:
            self.top = [max(a, b) for a, b in zip(self.top, anonymous())]
            time.sleep(0.02)
    def over(self):
        return [a - b for a, b in zip(self.top, self.start)]

def cells(dtype):
    rng = np.random.default_rng(0)
    some = rng.integers(0, 250, (512, 2, side, side)).astype(dtype)
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    some = (some // 10 + 180 * (np.hypot(y, x) < 6)).astype(dtype)
    import dask.array as da
    k = -(-n // 512)
    crops = da.concatenate([da.from_array(some, chunks=some.shape)] * k)[:n]
    nnz = max(1, genes // 4)
    rows = np.arange(n + 1, dtype=np.int64) * nnz
    step = genes // nnz  # a cell has every fourth gene, its neighbour the next ones
    columns = (np.arange(nnz, dtype=np.int32) * step + np.arange(n, dtype=np.int32)[:, None] % step).ravel()
    X = sp.csr_matrix((rng.poisson(3, n * nnz).astype(np.int32), columns, rows), shape=(n, genes))
    obs = pd.DataFrame({"condition": pd.Categorical(np.where(np.arange(n) % 2, "a", "b")), "fov": pd.Categorical(np.arange(n) // 1000 % 400)},
                       index=[f"c{i}" for i in range(n)])
    a = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]))
    a.obsm["crops"] = crops
    a.obsm["spatial_px"] = rng.uniform(0, 4000, (n, 2))
    a.uns["crops"] = {"channels": ["B2M", "DAPI"], "pixel_size": 0.5, "size": 64, "output_size": side}
    sst.io.write_store(a, folder / "cells.zarr")
"""

_PICTURES = """
from sst.models import Editor, Registry, build_editor
from sst.train import EditorConfig
if sys.argv[4] == "make":
    cells(np.uint8)
    sys.exit()
a = sst.io.open_store(folder / "cells.zarr")
config = EditorConfig.preset("demo")
registry = Registry.from_adata(a, groupby="condition", kind="editor")
network = build_editor(registry, config)
with torch.no_grad():
    network.levers.normal_(std=0.2)
model = Editor(registry, config, network)
model.generate(a[:64].copy(), layer=None)
said = []
logging.getLogger("sst").setLevel(logging.INFO)
logging.getLogger("sst").addFilter(lambda record: said.append(record.getMessage()) or True)
peak, start = Peak(), time.perf_counter()
sst.tl.edit(a, ["g0", "g4", "g8"], "condition", method="ot", model=model, store=folder / "pictures.zarr")
drawn = time.perf_counter() - start
sst.tl.morphology(a, key="edited", n_jobs=1)
private, all_ = peak.over()
waited = next(text.split(", ")[-1].removesuffix(" of it waiting") for text in said if "of it waiting" in text)
print(f"| {n} | {private:.3f} | {all_:.2f} | {drawn:.0f} | {waited} | {time.perf_counter() - start - drawn:.0f} |")
"""

_EXPRESSION = """
if sys.argv[4] == "make":
    cells(np.uint16)
    sys.exit()
import dask.array
peak, start = Peak(), time.perf_counter()
a = sst.io.open_store(folder / "cells.zarr")
sst.pp.rescale_intensity(a, groupby="condition")
sst.pp.train_test_split(a, by="fov", size=64)
sst.tl.edit(a, None, "condition", method="ot", model=None)
b = a[(a.obs["condition"] == "a").to_numpy()]
b.obsm["crops"][:10].compute()
private, all_ = peak.over()
print(f"| {n} | {private:.2f} | {all_:.2f} | {time.perf_counter() - start:.0f} | | |")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["pictures", "expression"], default="pictures")
    parser.add_argument("--cells", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--genes", type=int)
    args = parser.parse_args()
    genes = args.genes or (100 if args.what == "pictures" else 500)
    print(
        "| cells | private memory, GiB over the start | with mapped files, GiB | edit and draw (all), s | of it waiting | morphology, s |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for n in args.cells:
        with tempfile.TemporaryDirectory() as folder:
            code = _COMMON + (_PICTURES if args.what == "pictures" else _EXPRESSION)
            for step in ("make", "run"):
                command = [sys.executable, "-W", "ignore", "-c", code, str(n), str(genes), str(Path(folder)), step]
                print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
