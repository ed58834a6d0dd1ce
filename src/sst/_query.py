"""Queries of a table: comparisons of its columns, and nothing else. A query can come from a file, so nothing in it is ever run."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
LONGEST = 100_000
TOKENS = re.compile(r"""`([^`]*)`|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[&|]""")
GRAMMAR = "names of columns (`in backticks` if they are no plain words), == != < <= > >=, in, not in, and, or, not, & | ~, numbers, texts, [lists]"


class QueryError(ValueError):
    """A query asks for more than comparisons, or for what the table does not have."""


def query_mask(table: pd.DataFrame, text: str) -> np.ndarray:
    """Rows of a table that a query chooses, as booleans.

    The query is read into a syntax tree, of which only comparisons of columns and literals, membership, and logic are known: no
    attribute, no call, no other variable. ``&`` and ``|`` bind like ``and`` and ``or``, as pandas has them.

    Raises
    ------
    QueryError
        Anything else is in it, a column is not there, or values do not compare.
    """
    if len(text) > LONGEST:
        msg = f"it is {len(text)} letters long, at most {LONGEST} are read"
        raise QueryError(msg)
    quoted: dict[str, str] = {}

    def plain(found: re.Match[str]) -> str:
        token = found.group()
        if token in "&|":
            return " and " if token == "&" else " or "
        if found.group(1) is None:
            return token
        name = f"_column_{len(quoted)}_{'x' * text.count('_column_')}"
        quoted[name] = found.group(1)
        return f" {name} "

    try:
        tree = ast.parse(TOKENS.sub(plain, text).strip(), mode="eval")
        return _Reader(table, quoted).mask(tree.body)
    except QueryError:
        raise
    except SyntaxError as error:
        msg = f"it is not a comparison: {error.msg}"
        raise QueryError(msg) from None
    except (TypeError, ValueError) as error:
        msg = f"its values do not compare: {error}"
        raise QueryError(msg) from None
    except (RecursionError, MemoryError):
        msg = "it is nested too deeply"
        raise QueryError(msg) from None


class _Reader:
    """The value of each kind of node; a kind that is not here is refused."""

    def __init__(self, table: pd.DataFrame, quoted: dict[str, str]) -> None:
        self.table, self.quoted = table, quoted

    def mask(self, node: ast.expr) -> np.ndarray:
        """A node as one yes or no a row."""
        if isinstance(node, ast.BoolOp):
            masks = [self.mask(part) for part in node.values]
            return np.logical_and.reduce(masks) if isinstance(node.op, ast.And) else np.logical_or.reduce(masks)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            return ~self.mask(node.operand)
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.Name):
            column = self._column(node)
            values = column.dropna()
            if not values.isin([True, False]).all() or column.dtype.kind in "iuf":
                msg = f"column {self._name(node)!r} alone is no yes or no: compare it with something"
                raise QueryError(msg)
            return column.eq(True).fillna(False).to_numpy(dtype=bool)  # noqa: FBT003
        raise self._refuse(node)

    def _compare(self, node: ast.Compare) -> np.ndarray:
        out = np.ones(len(self.table), dtype=bool)
        sides = [node.left, *node.comparators]
        for left, how, right in zip(sides[:-1], node.ops, sides[1:], strict=True):
            out &= self._pair(left, how, right)
        return out

    def _pair(self, left: ast.expr, how: ast.cmpop, right: ast.expr) -> np.ndarray:
        among = isinstance(how, ast.In | ast.NotIn) or isinstance(right, ast.List | ast.Tuple | ast.Set)
        if among:
            if not isinstance(left, ast.Name) or not isinstance(how, ast.In | ast.NotIn | ast.Eq | ast.NotEq):
                msg = "a list is compared with a column, by in, not in, == or !="
                raise QueryError(msg)
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                msg = f"{ast.unparse(right)!r} is no list: write in [...]"
                raise QueryError(msg)
            found = self._column(left).isin([self._literal(one) for one in right.elts]).to_numpy(dtype=bool)
            return ~found if isinstance(how, ast.NotIn | ast.NotEq) else found
        if type(how) not in COMPARE:
            raise self._refuse(ast.Compare(left, [how], [right]))
        values = [self._column(side) if isinstance(side, ast.Name) else self._literal(side) for side in (left, right)]
        found = COMPARE[type(how)](*values)
        if not hasattr(found, "to_numpy"):
            msg = f"{ast.unparse(left)!r} and {ast.unparse(right)!r} are both constants"
            raise QueryError(msg)
        missing = isinstance(how, ast.NotEq)  # as numpy has it: what is not known differs from everything
        return found.fillna(missing).to_numpy(dtype=bool)

    def _literal(self, node: ast.expr) -> Any:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._literal(node.operand)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            return node.value
        raise self._refuse(node)

    def _name(self, node: ast.Name) -> str:
        return self.quoted.get(node.id, node.id)

    def _column(self, node: ast.Name) -> pd.Series:
        name = self._name(node)
        if name not in self.table.columns:
            msg = f"there is no column {name!r}"
            raise QueryError(msg)
        column = self.table[name].reset_index(drop=True)
        if column.dtype.name == "category" and not column.cat.ordered:
            return column.astype(column.cat.categories.dtype)  # compare the values, not the categories
        return column

    def _refuse(self, node: ast.AST) -> QueryError:
        return QueryError(f"{ast.unparse(node)!r} is not allowed in it; known are {GRAMMAR}")
