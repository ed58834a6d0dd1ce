"""Images of a few cells under any expression, and what is measured on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from sst import _keys
from sst._validate import check_members, describe_options
from sst.editing import take_rows
from sst.io import crop_reader
from sst.models import draw_options, inputs_of, starts_from
from sst.tl._measuring import NucleusView, channel_names

if TYPE_CHECKING:
    from anndata import AnnData

    from ._images import Drawing

Feature = Callable[[np.ndarray], np.ndarray]
Features = str | Feature | Sequence[str] | Mapping[str, Feature] | None


@dataclass(frozen=True)
class Cells:
    """Some cells of an object, whose expression can be changed and drawn.

    Attributes
    ----------
    index
        Rows in the object.
    X
        Their counts, dense, m x p, float64.
    names, var_names
        Of cells and genes.
    crops
        Real crops (m x c x h x w), where the model needs them.
    uns
        ``uns["crops"]`` of the object.
    apart
        Layers by which the model tells a window into halves; empty where it reads it as one.
    """

    index: np.ndarray
    X: np.ndarray
    names: pd.Index
    var_names: pd.Index
    crops: np.ndarray | None
    uns: dict[str, Any]
    apart: dict[str, np.ndarray] = field(default_factory=dict)

    def draw(
        self,
        model: Any,
        X: np.ndarray,
        drawing: Drawing,
        *,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Images of cells under the expression ``X``: uint8, n x c x h x w.

        ``rows`` says whose latent, noise and pixels each row of ``X`` has (default: one row for each cell, in order).
        """
        who = np.arange(len(self.X)) if rows is None else rows
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Observation names are not unique")
            part = ad.AnnData(
                np.asarray(X, dtype=np.float32),
                obs=pd.DataFrame(index=self.names[who]),
                var=pd.DataFrame(index=self.var_names),
                uns={_keys.CROPS: self.uns} if self.uns else {},
            )
            options: dict[str, Any] = {"seed": drawing.seed, "batch_size": drawing.batch_size}
            if self.apart:
                part.layers["asked"], part.X = part.X, self.X[who].astype(np.float32)
                part.layers.update({name: values[who] for name, values in self.apart.items()})
                options["layer"] = "asked"
            if self.crops is not None:
                part.layers["own"] = self.X[who].astype(np.float32)
                part.obsm[_keys.CROPS] = self.crops[who]
            options |= draw_options(model, source_layer="own", fade=drawing.fade or 0.0)
            return model.generate(part, **options)


def pick_cells(
    adata: AnnData,
    X: Any,
    mask: np.ndarray,
    *,
    n_cells: int,
    seed: int,
    model: Any = None,
    prefer: str | None = None,
    donors: np.ndarray | None = None,
) -> Cells:
    """At most ``n_cells`` of a mask, drawn at random; held-out cells first (``prefer="test"``) if there are any.

    With ``donors`` (n labels) as many of each, as far as they go.
    """
    index = np.flatnonzero(mask)
    if prefer is not None and _keys.SPLIT in adata.obs:
        held = index[(adata.obs[_keys.SPLIT].astype(str).to_numpy()[index]) == prefer]
        index = held if len(held) else index
    if len(index) > n_cells:
        rng = np.random.default_rng(seed)
        if donors is None:
            index = np.sort(rng.choice(index, n_cells, replace=False))
        else:
            order = index[rng.permutation(len(index))]
            turn = pd.Series(donors[order]).groupby(donors[order]).cumcount().to_numpy()  # its donor's k-th cell
            index = np.sort(order[np.argsort(turn, kind="stable")[:n_cells]])
    crops = None
    if model is not None and starts_from(model) != "expression":
        if _keys.CROPS not in adata.obsm:
            msg = f"obsm['crops'] is missing: a model of kind {model.registry.kind!r} reads the real crops."
            raise KeyError(msg)
        crops = crop_reader(adata).take(index)
    apart = {}
    if inputs_of(model):
        needed = {_keys.SEGMENTED, model.registry.layer} - {None}
        apart = {name: take_rows(adata.layers[name], index, np.float32) for name in map(str, needed)}
    uns = dict(adata.uns.get(_keys.CROPS, {}))
    return Cells(index, take_rows(X, index), adata.obs_names[index], adata.var_names, crops, uns, apart)


class Measure:
    """Named features of images: columns of :func:`sst.metrics.nucleus_features`, or functions of the images.

    Parameters
    ----------
    adata
        Names the channels and the size of a pixel.
    features
        A column, a function of images (n x c x h x w uint8 -> n numbers), a list of columns, ``{name: function}``, or ``None``
        for the nucleus' area and the mean intensity of each channel over the window.
    """

    def __init__(self, adata: AnnData, features: Features) -> None:
        self.functions: dict[str, Feature] = {}
        self.columns: list[str] = []
        self.channels = channel_names(adata)
        if features is None:
            self.columns = ["nucleus_area", *(f"{_keys.column_name(c)}_window_mean" for c in self.channels)]
        elif isinstance(features, str):
            self.columns = [features]
        elif isinstance(features, Mapping):
            self.functions = {str(k): f for k, f in features.items()}
        elif callable(features):
            self.functions = {getattr(features, "__name__", "feature"): features}
        else:
            self.columns = check_members(features, name="features")
        self.view = NucleusView.of(adata) if self.columns else None
        for name, function in self.functions.items():
            if not callable(function):
                msg = f"features: {name!r} is {function!r}, no function of images."
                raise TypeError(msg)
            if "/" in name:
                msg = f"features: {name!r} holds a '/', which no file can store in a name."
                raise ValueError(msg)

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [*self.columns, *self.functions]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of images: n x f, NaN where there is no nucleus."""
        values = np.empty((len(images), len(self.names)))
        if self.view is not None:
            table = self.view.measure(images)
            unknown = [c for c in self.columns if c not in table.columns]
            if unknown:
                numeric = table.select_dtypes("number").columns
                msg = f"features: {unknown} are not measured. {describe_options(numeric, unknown[0], most=40)}"
                raise KeyError(msg)
            values[:, : len(self.columns)] = table[self.columns].to_numpy(dtype=float)
        for k, (name, function) in enumerate(self.functions.items(), start=len(self.columns)):
            found = np.asarray(function(images), dtype=float)
            if found.shape != (len(images),):
                msg = f"feature {name!r} gave an array of shape {found.shape} for {len(images)} images: expected one number each."
                raise ValueError(msg)
            values[:, k] = found
        return values
