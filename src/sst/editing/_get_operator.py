"""Operators by name."""

from __future__ import annotations

from typing import Any

from sst._validate import check_choice

from ._from_layer import FromLayer
from ._mean import Mean
from ._operators import Operator
from ._prescribed import Knockout, Scale, SetTo
from ._quantile import Quantile
from ._scm import SCM
from ._transport import OT

METHODS = ["scm", "ot", "ot_centered", "mean", "quantile", "scale", "knockout", "set", "from_layer"]
NO_TARGET = {"scale", "knockout", "set", "from_layer"}
"""Methods that learn nothing from the groups."""


def get_operator(method: str | Operator, *, top_k: int | None = 1, value: Any = None) -> Operator:
    """The operator called ``method`` (or ``method`` itself, if it is one).

    Parameters
    ----------
    method
        One of ``"scm"``, ``"ot"``, ``"ot_centered"``, ``"mean"``, ``"quantile"``, ``"scale"``, ``"knockout"``,
        ``"set"``, ``"from_layer"``, or any object with ``summarize`` and ``fit``.
    top_k
        For ``"scm"``: leading components to scale, ``None`` for all.
    value
        For ``"scale"`` the factor (default 2) and for ``"set"`` the counts: a number or one per gene of the panel; for
        ``"from_layer"`` the matrix.

    Raises
    ------
    ValueError
        The name is not known, or the method needs a ``value``.
    """
    if not isinstance(method, str):
        if isinstance(method, Operator):
            return method
        msg = f"method={method!r}: expected a name or an object with summarize() and fit()."
        raise TypeError(msg)
    check_choice("method", method, METHODS)
    if method in {"set", "from_layer"} and value is None:
        msg = f"method={method!r} needs value=: {'the counts to set' if method == 'set' else 'the layer to take'}."
        raise ValueError(msg)
    if method == "scm":
        return SCM(top_k=top_k)
    if method == "scale":
        return Scale(2.0 if value is None else value)
    if method == "set":
        return SetTo(value)
    if method == "from_layer":
        return FromLayer(value)
    simple: dict[str, Operator] = {
        "ot": OT(),
        "ot_centered": OT(centered=True),
        "mean": Mean(),
        "quantile": Quantile(),
        "knockout": Knockout(),
    }
    return simple[method]
