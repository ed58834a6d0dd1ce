"""Operators by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sst._arguments import checked
from sst._validate import check_choice

from ._from_layer import FromLayer
from ._mean import Mean
from ._operators import Operator
from ._prescribed import Knockout, Scale, SetTo
from ._quantile import Quantile
from ._scm import SCM
from ._transport import OT

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Method:
    """One way to edit: everything that is known of it before it meets data.

    Attributes
    ----------
    operator
        The class behind it.
    make
        From a value and ``top_k`` to the operator.
    target
        Whether it learns from a group that the cells go toward.
    value
        What it takes as ``value=``, in words; empty if it takes none.
    default
        Of the value; ``None``: it must be given.
    """

    operator: type
    make: Callable[[Any, int | None], Operator]
    target: bool = True
    value: str = ""
    default: float | None = None


METHODS: dict[str, Method] = {
    "scm": Method(SCM, lambda value, top_k: SCM(top_k=top_k)),
    "ot": Method(OT, lambda value, top_k: OT()),
    "ot_centered": Method(OT, lambda value, top_k: OT(centered=True)),
    "mean": Method(Mean, lambda value, top_k: Mean()),
    "quantile": Method(Quantile, lambda value, top_k: Quantile()),
    "scale": Method(Scale, lambda value, top_k: Scale(value), target=False, value="the factor", default=2.0),
    "knockout": Method(Knockout, lambda value, top_k: Knockout(), target=False),
    "set": Method(SetTo, lambda value, top_k: SetTo(value), target=False, value="the counts to set"),
    "from_layer": Method(FromLayer, lambda value, top_k: FromLayer(value), target=False, value="the layer to take"),
}
"""The names that ``method=`` takes. A new operator is one more line."""


@checked
def get_operator(method: str | Operator, *, top_k: int | None = 1, value: Any = None) -> Operator:
    """The operator called ``method`` (or ``method`` itself, if it is one).

    Parameters
    ----------
    method
        One of :data:`METHODS`, or any object with ``summarize`` and ``fit``.
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
    SCM(top_k=top_k)  # says what is wrong with it, whatever the method
    record = METHODS[check_choice("method", method, list(METHODS))]
    value = record.default if value is None else value
    if record.value and value is None:
        msg = f"method={method!r} needs value=: {record.value}."
        raise ValueError(msg)
    return record.make(value, top_k)
