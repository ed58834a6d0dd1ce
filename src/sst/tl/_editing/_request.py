"""An edit as a value: what was asked for, what that means for an object, and what is noted of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sst._settings import logger
from sst._validate import check_choice, check_genes, check_key, check_range, get_counts
from sst.editing import METHODS, Operator, Options, average, check_counts, get_operator, resolve_genes, rows_of
from sst.models import HALVES, half_of

from ._batches import Batches, Lesson
from ._plan import Direction, Subset, plan_directions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anndata import AnnData

    from sst.editing import Fitted

OPERATORS = {m.operator.__name__: m.operator for name, m in METHODS.items() if name != "from_layer"}
"""Operators that a record can name; another method's layer is named by ``value`` instead."""


@dataclass(frozen=True)
class EditRequest:
    """An edit as it is asked for; :func:`sst.tl.edit` says what each field means."""

    genes: str | Path | Iterable[str] | Mapping[str, Iterable[str]] | None = None
    groupby: str | None = None
    source: str | None = None
    target: str | None = None
    method: str | Operator = "ot"
    top_k: int | None = 1
    strength: float = 1.0
    clip: bool = True
    subset: Subset = None
    layer: str | None = None
    value: float | Mapping[str, float] | str | None = None
    fit_on: str = "train"
    fit_subset: Subset = None
    latent: bool = False
    force: bool = False
    batch_key: str | None = None
    part: str | None = None

    def with_model(self, model: Any) -> Self:
        """The groups of an image model, if no column was named."""
        groupby = self.groupby or (getattr(model.registry, "groupby", None) if model is not None else None)
        return dataclasses.replace(self, groupby=groupby or None)

    def counts(self, adata: AnnData) -> Any:
        """The counts that are edited: the window's, or a half of them."""
        if self.part is None:
            return get_counts(adata, self.layer)
        return half_of(adata, self.layer, check_choice("part", self.part, HALVES))

    def other(self, adata: AnnData) -> Any:
        """The half that is left as it is; ``None`` where the window is edited as one."""
        return None if self.part is None else half_of(adata, self.layer, next(h for h in HALVES if h != self.part))

    def resolve(self, adata: AnnData) -> Edit:
        """What the request means for an object: its counts, genes, operator and directions, all checked."""
        check_range("strength", self.strength)
        X = self.counts(adata)
        names = list(adata.var_names)
        by_gene = self.genes is None and isinstance(self.value, Mapping)
        chosen = resolve_genes(list(self.value) if by_gene else self.genes, names)  # type: ignore[arg-type]
        check_counts(X, names, name="X" if self.layer is None else f"layers[{self.layer!r}]")
        return Edit(
            request=dataclasses.replace(self, genes=chosen),
            X=X,
            var_names=np.asarray(names, dtype=str),
            operator=get_operator(self.method, top_k=self.top_k, value=self._operator_value(adata)),
            directions=plan_directions(
                adata,
                self.groupby,
                source=self.source,
                target=self.target,
                method=self.method,
                subset=self.subset,
                fit_on=self.fit_on,
                fit_subset=self.fit_subset,
            ),
            options=Options(
                genes=None if chosen is None else np.sort(adata.var_names.get_indexer(chosen)),
                strength=self.strength,
                clip=self.clip,
            ),
            batches=None if self.batch_key is None else Batches.of(adata, self.batch_key),
        )

    def _operator_value(self, adata: AnnData) -> Any:
        """The value as operators want it: a number, one per gene, or a matrix."""
        if isinstance(self.method, str) and self.method == "from_layer" and self.value is not None:
            if not isinstance(self.value, str):
                msg = f"value={self.value!r}: method='from_layer' needs the name of a layer."
                raise TypeError(msg)
            return check_key(adata, "layers", self.value, name="value")
        if isinstance(self.value, Mapping):
            if not isinstance(self.method, str) or METHODS[check_choice("method", self.method, list(METHODS))].target:
                msg = f"value={self.value!r}: method={self.method!r} takes none."
                raise ValueError(msg)
            chosen = check_genes(list(adata.var_names), self.value, name="value")
            whole = np.full(adata.n_vars, 1.0 if self.method == "scale" else 0.0)
            whole[adata.var_names.get_indexer(chosen)] = [
                check_range(f"value[{g!r}]", self.value[g], low=0) for g in chosen
            ]
            return whole
        return self.value

    def to_params(self) -> dict[str, Any]:
        """What ``uns[key]["params"]`` holds of the request (``genes`` as names); :meth:`from_params` reads it."""
        plain = (
            "genes",
            "groupby",
            "source",
            "target",
            "top_k",
            "clip",
            "layer",
            "fit_on",
            "latent",
            "force",
            "batch_key",
            "part",
        )
        params = {name: getattr(self, name) for name in plain}
        params |= {"strength": float(self.strength), "subset": _storable(self.subset)}
        params |= {"fit_subset": _storable(self.fit_subset)}
        if isinstance(self.value, Mapping):
            params["value_genes"] = [str(g) for g in self.value]
            params["value"] = [float(v) for v in self.value.values()]
        else:
            params["value"] = self.value
        if isinstance(self.method, str):
            return params | {"method": self.method}
        params["method"] = type(self.method).__name__
        if dataclasses.is_dataclass(self.method):
            options = {f.name: getattr(self.method, f.name) for f in dataclasses.fields(self.method)}
            simple = {k: v for k, v in options.items() if v is None or isinstance(v, str | int | float | np.ndarray)}
            params |= {"method_options": simple, "method_unset": [k for k, v in simple.items() if v is None]}
        return params

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """The request behind a record, also one that was written to a file and read back.

        Raises
        ------
        ValueError
            It was made with an operator that is none of ours.
        """
        genes = _names(params.get("value_genes"))
        value = plain(params.get("value"))
        if genes:
            value = dict(zip(genes, np.asarray(value, dtype=float).tolist(), strict=True))
        return cls(
            genes=_names(params.get("genes")),
            groupby=plain(params.get("groupby")),
            source=plain(params.get("source")),
            target=plain(params.get("target")),
            method=_recorded_method(params),
            top_k=plain(params.get("top_k")),
            strength=float(number(params, "strength")),
            clip=bool(params["clip"]),
            subset=_recorded_subset(params.get("subset")),
            layer=plain(params.get("layer")),
            value=value,
            fit_on=str(params["fit_on"]),
            fit_subset=_recorded_subset(params.get("fit_subset")),
            latent=bool(params.get("latent", False)),
            force=bool(params.get("force", False)),
            batch_key=plain(params.get("batch_key")),
            part=plain(params.get("part")),
        )


@dataclass(frozen=True)
class Edit:
    """A request that met an object.

    Attributes
    ----------
    request
        What was asked for, ``genes`` as names (``None``: all).
    X
        The counts, n x p.
    var_names
        Of the genes.
    operator, directions, options
        How cells change, which toward what, and what of them.
    batches
        Each cell's slide or donor, where edits are learnt from one at a time.
    """

    request: EditRequest
    X: Any
    var_names: np.ndarray
    operator: Operator
    directions: list[Direction]
    options: Options
    batches: Batches | None = None

    @property
    def gene_names(self) -> np.ndarray:
        """Of the edited genes, in the panel's order."""
        return self.var_names if self.options.genes is None else self.var_names[self.options.genes]

    @property
    def assign(self) -> np.ndarray:
        """For each cell the number of its direction, -1 for none."""
        out = np.full(self.X.shape[0], -1)
        for number, direction in enumerate(self.directions):
            out[direction.cells] = number
        return out

    def fit(self, directions: Sequence[Direction] | None = None) -> tuple[list[Fitted], list[np.ndarray | None]]:
        """Fit the operator to each direction (``None``: the edit's); groups that serve twice are summarised once.

        Returns
        -------
        The fitted edits, and the mean of each gene over the target's cells (``None`` where the operator does not know it).

        Raises
        ------
        ValueError
            Genes asked for by name are constant over source and target: there is nothing to learn.
        """
        named = directions is None and self.request.genes is not None
        summaries: dict[bytes, Any] = {}

        def summary(mask: np.ndarray) -> Any:
            key = np.packbits(mask).tobytes()
            if key not in summaries:
                summaries[key] = self.operator.summarize(rows_of(self.X, mask))
            return summaries[key]

        fitted: list[Fitted] = []
        means: list[np.ndarray | None] = []
        for direction in self.directions if directions is None else directions:
            if direction.target is None:
                fitted.append(self.operator.fit(None, None))
                means.append(None)
                continue
            lessons = [Lesson(0, direction.fit_source, (direction.fit_target,))]
            if self.batches is not None:
                lessons = self.batches.lessons(direction)
            groups = [summary(mask) for lesson in lessons for mask in (lesson.source, *lesson.targets)]
            if hasattr(groups[0], "constant"):
                self._check_varies(direction, groups, named=named)
            edits = [
                average([self.operator.fit(summary(lesson.source), summary(mask)) for mask in lesson.targets])
                for lesson in lessons
            ]
            fitted.append(edits[0] if self.batches is None else self.batches.together(lessons, edits))
            toward = [summary(mask) for lesson in lessons for mask in lesson.targets]
            means.append(
                np.mean([s.mean for s in toward], axis=0)
                if isinstance(getattr(toward[0], "mean", None), np.ndarray)
                else None
            )
        return fitted, means

    def _check_varies(self, direction: Direction, groups: Sequence[Any], *, named: bool) -> None:
        same = np.all([g.constant & np.isclose(g.mean, groups[0].mean) for g in groups], axis=0)
        if self.options.genes is not None:
            same &= np.isin(np.arange(len(same)), self.options.genes)
        if not same.any():
            return
        labels = self.var_names[same].tolist()
        more = f" and {len(labels) - 8} more" if len(labels) > 8 else ""
        text = f"genes {labels[:8]}{more} are constant over {direction.name}: there is nothing to learn."
        if named:
            msg = f"{text} Leave them out, or use method='set' or 'scale'."
            raise ValueError(msg)
        logger.warning(text)


def plain(value: Any) -> Any:
    """A scalar as Python's own type (files give numpy's)."""
    return value.item() if isinstance(value, np.generic) else value


def number(params: Mapping[str, Any], field: str) -> float:
    """A number of a record; the error names the field."""
    return check_range(f"params[{field!r}]", plain(params[field]))


def _names(value: Any) -> list[str] | None:
    return None if value is None else [str(v) for v in np.atleast_1d(np.asarray(value, dtype=object))]


def _storable(subset: Any) -> Any:
    """A subset in a form that can be stored: mask, query, or a dict of lists."""
    if subset is None or isinstance(subset, str):
        return subset
    if hasattr(subset, "items"):
        return {str(k): [str(v)] if isinstance(v, str) else [str(one) for one in v] for k, v in subset.items()}
    return np.asarray(subset, dtype=bool)


def _recorded_subset(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "items"):
        return {k: _names(v) for k, v in value.items()}
    return np.asarray(value, dtype=bool)


def _recorded_method(params: Mapping[str, Any]) -> str | Operator:
    name = str(params["method"])
    if name in METHODS:
        return name
    if name not in OPERATORS:
        msg = f"the edit was made with an operator {name} of your own: repeat it with sst.tl.edit(adata, method=...)."
        raise ValueError(msg)
    options = {str(k): plain(v) for k, v in dict(params.get("method_options", {})).items()}
    options |= dict.fromkeys(_names(params.get("method_unset")) or [])
    known = [f.name for f in dataclasses.fields(OPERATORS[name])]
    unknown = [k for k in options if k not in known]
    if unknown:
        msg = f"the record of the edit names options {unknown} that {name} does not have; it has {known}."
        raise ValueError(msg)
    return OPERATORS[name](**options)
