"""What a model was trained on, and the check that it fits another object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._validate import check_groups, check_key, get_counts, holds_whole_numbers

from ._halves import check_inputs, segmented_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

VERSION = 5  # 2: notes, 3: expression, 4: batch_key, slides, 5: inputs


@dataclass(frozen=True)
class Registry:
    """The object behind a model: its genes, channels, crop geometry, intensity limits and groups.

    Attributes
    ----------
    kind
        ``"gan"``, ``"clip"``, ``"inversion"``, ``"editor"``.
    genes, channels
        Names, in the order of the networks' inputs.
    output_size, crop_size
        Side of the images, and of the window they were cut from, in pixels.
    pixel_size
        um per output pixel, 0 if unknown.
    groupby, groups
        obs column and its categories, in the order of the labels; empty if the model knows no groups.
    batch_key, slides
        obs column of the slides (or donors) that training kept apart, and those it saw; empty if it took all cells for those of one.
    limits
        Intensity limits that made the crops uint8 (``uns["crops"]["limits"]``).
    expression
        What it learnt from: ``layer`` (``"X"`` or a layer's name) and whether it held ``whole`` numbers; empty if an earlier version
        trained it.
    inputs
        What of a window it reads, each all genes wide, in order: ``"own"`` (the cell's counts), ``"niche"`` (all others); empty if it reads
        the window as one.
    notes
        What a reader of results must know of how the model was made, by topic: which networks computed its losses, where weights came
        from. Plain text.
    version
        Of this description.
    """

    kind: str
    genes: tuple[str, ...]
    channels: tuple[str, ...]
    output_size: int
    crop_size: int
    pixel_size: float = 0.0
    groupby: str = ""
    groups: tuple[str, ...] = ()
    batch_key: str = ""
    slides: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    expression: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    version: int = VERSION

    @classmethod
    def from_adata(
        cls,
        adata: AnnData,
        groupby: str | None = None,
        kind: str = "gan",
        *,
        layer: str | None = None,
        inputs: Sequence[str] | None = None,
    ) -> Registry:
        """Describe an object with paired crops.

        Raises
        ------
        KeyError
            ``obsm["crops"]``, ``uns["crops"]`` or ``groupby`` is not there.
        """
        crops = check_key(adata, "obsm", _keys.CROPS, name="crops")
        about = check_key(adata, "uns", _keys.CROPS, name="crops")
        side = int(crops.shape[-1])
        channels = tuple(str(c) for c in about.get("channels", [str(i) for i in range(crops.shape[1])]))
        if len(channels) != crops.shape[1]:
            msg = f"uns['crops']['channels'] names {list(channels)}, but the crops have {crops.shape[1]} channels."
            raise ValueError(msg)
        return cls(
            kind=kind,
            genes=tuple(str(g) for g in adata.var_names),
            channels=channels,
            output_size=side,
            crop_size=int(about.get("size", side)),
            pixel_size=float(about.get("pixel_size", 0.0)),
            groupby=groupby or "",
            groups=tuple(check_groups(adata, groupby)) if groupby else (),
            limits=_plain(about.get("limits", {})),
            expression={"layer": layer or "X", "whole": holds_whole_numbers(get_counts(adata, layer))},
            inputs=check_inputs(adata, inputs, layer),
        )

    @property
    def n_inputs(self) -> int:
        """Width of what the networks read: as many values a cell."""
        return len(self.genes) * max(len(self.inputs), 1)

    @property
    def input_names(self) -> list[str]:
        """What the networks read, in order: genes, or each half's."""
        halves = [f"{half} " for half in self.inputs] or [""]
        return [half + gene for half in halves for gene in self.genes]

    @property
    def layer(self) -> str | None:
        """The counts that it learnt from, ``None`` for ``X``."""
        name = str(self.expression.get("layer", "X"))
        return None if name == "X" else name

    def check(self, adata: AnnData, layer: str | None = None) -> np.ndarray:
        """Columns of ``adata`` in the order of the model's genes.

        Raises
        ------
        ValueError
            Genes, channels or sizes differ; the message names them.
        KeyError
            ``layer`` is not there.
        """
        if layer is not None:
            check_key(adata, "layers", layer, name="layer")
        if self.inputs:
            segmented_of(adata)
            get_counts(adata, self.layer)
        places = self.gene_index([str(g) for g in adata.var_names])
        about = adata.uns.get(_keys.CROPS, {})
        channels = tuple(str(c) for c in about.get("channels", self.channels))
        if channels != self.channels:
            msg = f"channels differ: the {self.kind} model has {list(self.channels)}, the object {list(channels)}."
            raise ValueError(msg)
        if _keys.CROPS in adata.obsm:
            shape = tuple(adata.obsm[_keys.CROPS].shape[1:])
            mine = (len(self.channels), self.output_size, self.output_size)
            if shape != mine:
                msg = f"sizes differ: the {self.kind} model has images of {mine} (c x h x w), the object crops of {shape}."
                raise ValueError(msg)
        size = int(about.get("size", self.crop_size))
        if size != self.crop_size:
            msg = f"sizes differ: the {self.kind} model was trained on windows of {self.crop_size} px, the object has {size} px."
            raise ValueError(msg)
        return places

    def gene_index(self, names: Sequence[str]) -> np.ndarray:
        """Where each of the model's genes is among ``names``, which must hold the same genes in any order."""
        places = {name: i for i, name in enumerate(names)}
        missing = [g for g in self.genes if g not in places]
        extra = sorted(set(names) - set(self.genes))
        if missing or extra:
            parts = [f"{what} {_some(genes)}" for what, genes in (("missing", missing), ("unknown", extra)) if genes]
            msg = f"genes differ from the {len(self.genes)} that the {self.kind} model was trained on: {'; '.join(parts)}."
            raise ValueError(msg)
        return np.array([places[g] for g in self.genes])

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Registry:
        """The inverse of :meth:`to_dict`; an earlier version is brought up to date.

        Raises
        ------
        ValueError
            The description is of a later version than this package knows.
        """
        if values.get("version", 0) > VERSION:
            msg = f"the model's registry has version {values['version']}; this package reads up to {VERSION}. Update sst-editing."
            raise ValueError(msg)
        made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**made | {"version": VERSION})


def _some(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return f"[{shown}]" if len(names) <= most else f"[{shown}, ... {len(names)} in all]"


def _plain(value: Any) -> Any:
    """Nested dictionaries of lists, numbers and strings."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
