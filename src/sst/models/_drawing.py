"""What everything that draws must know of a model of images, whatever its kind."""

from __future__ import annotations

from typing import Any

from sst import _keys

from ._base import KINDS, Start


def inputs_of(model: Any) -> tuple[str, ...]:
    """The halves of a window that a model reads apart; none, where it reads the window as one."""
    return tuple(getattr(getattr(model, "registry", None), "inputs", ()))


def starts_from(model: Any) -> Start:
    """What a model (or a kind, by its name) draws from; see :attr:`Model.starts_from`."""
    if isinstance(model, str):
        return KINDS[model].starts_from if model in KINDS else "expression"
    return getattr(model, "starts_from", None) or starts_from(
        str(getattr(getattr(model, "registry", None), "kind", ""))
    )


def image_before(kind: str) -> str:
    """Slot of ``obsm`` with the images before an edit by a model of this kind: the crops, or what the model drew of them."""
    return _keys.CROPS if starts_from(kind) == "crop" else _keys.GENERATED


def images_name(kind: str) -> str:
    """What tables call the images of a kind of model; empty if it makes none."""
    return KINDS[kind].images if kind in KINDS else ""


def cells_at_once(model: Any) -> int:
    """How many cells a model draws together unless it is told otherwise."""
    return model.cells_at_once() if hasattr(model, "cells_at_once") else 64


def draw_options(model: Any, *, source_layer: str | None, fade: float = 0.0) -> dict[str, Any]:
    """Keywords of ``model.generate`` beside the layer: the cells' own expression and the fade, where the model reads them."""
    start = starts_from(model)
    options: dict[str, Any] = {} if start == "expression" else {"source_layer": source_layer}
    return options | ({"fade": fade} if start == "code" else {})
