"""Calls of every public function with odd arguments, and what may come of them."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import signal
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from factories import paired_cells, small_gan

import sst

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

ENDLESS = 60  # seconds; a call of this size is done in less than two
SRC = str(Path(sst.__file__).parent)
NAN, INF = float("nan"), float("inf")
# what a user may hand over by mistake, for any argument
ODD: list[Any] = [
    None, True, 0, -1, 1, 2.5, 10**9, NAN, INF, -INF, "", " ", "x", "g1", "normal", "condition", "crops", "edited", "a/b", "..", "a\0b",
    "k" * 400, b"x", [], ["x"], ["g1"], ["g1", 3], [None], (), {}, {"x": 1}, {"g1": "a"}, {"condition": ["normal"]}, {1: 2}, set(), 1j,
    object(), np.array([]), np.array([NAN]), np.array("x"), np.zeros(3), np.ones(24, bool), np.zeros(24, bool), np.arange(24),
    np.zeros((2, 2)), np.int64(3), np.float32(0.5), "__import__('os').getpid() == 1", Path("nowhere"), range(3), slice(3),
]  # fmt: skip


def cells() -> AnnData:
    """24 edited, measured cells: everything that any function reads is there."""
    return _cells().copy()


@functools.cache
def _cells() -> AnnData:
    adata = paired_cells(24, rate=6.0)
    adata.obs["split"] = np.where(np.arange(24) // 2 % 2, "test", "train")
    adata.obs["fov"] = (np.arange(24) // 4).astype(str)
    adata.obsm["spatial_px"] = adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 100, (24, 2))
    sst.tl.edit(adata, ["g0", "g1"], method="mean", model=MODEL)
    for key in ("crops", "generated", "edited"):
        sst.tl.morphology(adata, key=key)
    return adata


def odd_cells(rng: np.random.Generator) -> Any:
    """Something in place of the object, or an object that something is wrong with."""
    adata = cells()
    changes: list[Callable[[], Any]] = [
        lambda: None, lambda: 3, lambda: "x", lambda: adata.X, lambda: adata.to_df(), lambda: adata[:0].copy(), lambda: adata[:, :0].copy(),
        lambda: adata[:1].copy(), lambda: adata[:3].copy(), lambda: adata[:, :1].copy(), lambda: setattr(adata, "X", None),
        lambda: setattr(adata, "X", np.full(adata.shape, "a")), lambda: setattr(adata, "X", np.full(adata.shape, NAN)),
        lambda: setattr(adata, "X", -adata.X), lambda: setattr(adata, "X", adata.X * 0), lambda: setattr(adata, "X", adata.X.toarray()),
        lambda: setattr(adata, "X", sp.csc_matrix(adata.X)), lambda: setattr(adata, "X", np.full(adata.shape, None, dtype=object)),
        lambda: adata.obs.drop(columns=["condition"], inplace=True), lambda: adata.obs.drop(columns=["split"], inplace=True),
        lambda: adata.obs.__setitem__("condition", "one"), lambda: adata.obs.__setitem__("condition", np.arange(24)),
        lambda: adata.obs.__setitem__("condition", [None] * 24), lambda: adata.obs.__setitem__("split", "test"),
        lambda: adata.obs.__setitem__("condition", ["tumor/edge", ".."] * 12), lambda: adata.obs.__setitem__("condition", ["", "\0"] * 12),
        lambda: adata.obs.__setitem__("split", 3.5), lambda: adata.uns.__setitem__("crops", 3), lambda: adata.uns.__setitem__("crops", {}),
        lambda: adata.uns["crops"].__setitem__("channels", ["a/b", ".."]), lambda: adata.uns["crops"].__setitem__("channels", 3),
        lambda: adata.uns["crops"].__setitem__("pixel_size", "x"), lambda: adata.uns["crops"].__setitem__("pixel_size", NAN),
        lambda: adata.uns["crops"].__setitem__("limits", {}), lambda: adata.uns.__setitem__("edited", 3), lambda: adata.uns.__setitem__("edited", {}),
        lambda: adata.uns["edited"].__setitem__("params", {}), lambda: adata.uns["edited"]["params"].__setitem__("method", "rm"),
        lambda: adata.uns["edited"]["params"].__setitem__("seed", "x"), lambda: adata.uns.__setitem__("sst", 3), lambda: adata.uns.clear(),
        lambda: adata.uns["edited"]["params"].pop("strength"), lambda: adata.uns["edited"]["params"].__setitem__("strength", "much"),
        lambda: adata.obsm.pop("crops"), lambda: adata.obsm.pop("generated"), lambda: adata.obsm.__setitem__("crops", np.zeros((24, 3))),
        lambda: adata.obsm.__setitem__("crops", np.zeros((24, 2, 8, 8), np.uint8)), lambda: adata.obsm.__setitem__("edited", np.zeros((24, 2, 0, 0))),
        lambda: adata.obsm.__setitem__("crops", np.full((24, 2, 8, 8), NAN)), lambda: adata.layers.pop("edited"),
        lambda: setattr(adata, "var_names", ["g0"] * 5), lambda: setattr(adata, "obs_names", ["c"] * 24),
    ]  # fmt: skip
    got = changes[rng.integers(len(changes))]()
    return adata if got is None and rng.random() < 0.98 else got


MODEL = small_gan(paired_cells(24, rate=6.0))
EDIT: dict[str, Any] = {"genes": ["g0"], "groupby": "condition", "model": None}
FEW: dict[str, Any] = {"n_cells": 6, "n_resamples": 20, "model": MODEL}
# a valid call of each function, and so cheap that thousands can be made; a function is called as {} if it is not here
VALID: dict[str, dict[str, Any]] = {
    "tl.edit": EDIT,
    "tl.edit_controls": EDIT | {"n_random": 1, "n_shuffles": 1, "n_cells": 6, "n_resamples": 20},
    "tl.dose_response": FEW | {"genes": "g1", "factors": (0, 1), "features": "DAPI_window_mean"},
    "tl.rank_genes_effect": {"feature": "DAPI_window_mean", "genes": ["g1"], "model": MODEL, "n_cells": 4, "n_steps": 2},
    "tl.evaluate": {"model": MODEL, "repeats": 1, "n_max": 4, "n_measured": 4, "features": "pixel-pca", "metrics": ("frechet",), "method": "mean"},
    "tl.distances": {"repeats": 1, "features": "pixel-pca", "metrics": ("frechet",), "n_max": 4},
    "tl.fidelity": {"n_max": 6, "clip": None, "features": ["DAPI_window_mean"]},
    "tl.generate": {"model": MODEL},
    "tl.replay": {"model": MODEL},
    "tl.transition": {"model": MODEL, "steps": 2, "n_cells": 2},
    "tl.confound_report": {"n_cells": 12, "n_folds": 2, "genes": ["g1"]},
    "tl.edit_effects": {"model": MODEL},
    "tl.identity": {"model": MODEL},
    "tl.morphology": {"key": "generated", "n_jobs": 1},
    "pl.gallery": {"n_cells": 1},
    "pl.crops_qc": {"n_cells": 12},
    "pl.gene_marker": {"genes": ["g1"]},
    "pl.expression_shift": {"genes": ["g0"]},
}  # fmt: skip
SLOW = {
    "train_gan",
    "train_clip",
    "train_inversion",
    "train_editor",
    "benchmark",
    "fit_rival",
    "counterfactual_axioms",
    "write_region",
    "crop_cells",
    "read_cosmx",
    "read_xenium",
}
ARRAYS: dict[str, Any] = {
    "x": np.random.default_rng(0).normal(size=(8, 3)), "y": np.random.default_rng(1).normal(size=(8, 3)), "values": np.arange(8.0),
    "change": np.ones((2, 8)), "true_change": np.ones(8), "images": np.zeros((2, 2, 16, 16), np.uint8), "X": np.ones((8, 3)), "mask": np.ones(8, bool),
    "fitted": [sst.editing.Knockout()], "means": np.ones((2, 9)), "genes": np.array([1, 2]), "source": np.eye(3), "target": np.eye(3),
    "edited": np.ones((8, 3)), "mean": np.ones(3), "variance": np.ones(3), "counts": np.random.default_rng(0).poisson(3.0, (40, 3)), "n_sets": 2,
    "method": "ot", "var_names": ["g1", "g2"], "first": np.arange(8) < 4, "second": np.arange(8) >= 4, "rows": np.arange(3), "top_k": 1, "path": "nowhere.gmt",
}  # fmt: skip


def functions() -> dict[str, Callable[..., Any]]:
    """Every public function of the rooms that people call, but those that train or read whole slides."""
    return {
        f"{room}.{name}": function
        for room in ("pp", "tl", "pl", "metrics", "editing")
        for name in getattr(sst, room).__all__
        if name not in SLOW and inspect.isfunction(function := getattr(getattr(sst, room), name))
    }


def odd_call(name: str, function: Callable[..., Any], rng: np.random.Generator) -> tuple[dict[str, Any], list[str]]:
    """Arguments of a call, one or two of them odd, and which."""
    parameters = inspect.signature(function).parameters
    arguments = dict(VALID.get(name, {}))
    for parameter in parameters:
        if parameter == "adata":
            arguments[parameter] = None
        elif (
            name.split(".")[0] in {"metrics", "editing"}
            and parameter in ARRAYS
            and parameters[parameter].default is inspect.Parameter.empty
        ):
            arguments[parameter] = ARRAYS[parameter]
    names = [
        p
        for p in parameters
        if p not in {"copy", "store", "out", "save", "weights", "lpips_weights", "device", "dtype"}
    ]
    odd = [str(n) for n in rng.choice(names, size=min(len(names), int(rng.integers(1, 3))), replace=False)]
    for parameter in odd:
        arguments[parameter] = odd_cells(rng) if parameter == "adata" else ODD[rng.integers(len(ODD))]
    if "adata" in arguments and "adata" not in odd:
        arguments["adata"] = cells()
    return arguments, odd


def fault(function: Callable[..., Any], arguments: dict[str, Any], odd: list[str]) -> str:
    """What is wrong with what a call came to; empty if it gave a result, or an error of ours that names an argument or a slot."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, ENDLESS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
    except TimeoutError:
        return f"took more than {ENDLESS} s"
    except Exception as error:  # noqa: BLE001
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1]
        ours = last.filename.startswith(SRC) and (
            "raise" in (last.line or "") or last.filename.endswith("_arguments.py")
        )
        missing = isinstance(error, TypeError) and "missing a required argument" in str(error)
        text = str(error)
        stems = [n for p in (*odd, *arguments) for n in (p, p.rstrip("s"), p.removesuffix("_key"))] + [
            "obs",
            "uns",
            "adata",
            "object",
            "layer",
            "group",
            "gene",
            "cell",
            "crops",
            "region",
            "limits",
        ]
        named = any(re.search(re.escape(stem), text, re.IGNORECASE) for stem in stems) or text.startswith("X ")
        file = isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.filename is not None)
        if missing or file or (ours and named):
            return ""
        return f"{type(error).__name__}: {text[:150]} [{Path(last.filename).name}:{last.lineno} {last.line}]"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        plt.close("all")
    return ""


def run(n: int, seed: int) -> list[str]:
    """Make ``n`` calls and return the faults."""
    mpl.use("Agg")
    sst.settings.progress = False
    logging.getLogger("sst").setLevel(logging.CRITICAL)
    rng = np.random.default_rng(seed)
    every = functions()
    found = []
    for k in range(n):
        name = list(every)[k % len(every)]
        arguments, odd = odd_call(name, every[name], rng)
        what = fault(every[name], arguments, odd)
        if what:
            shown = {p: repr(arguments[p])[:60] for p in odd}
            found.append(f"{name}({shown}): {what}")
    logging.getLogger("sst").setLevel(logging.NOTSET)
    return found
