"""Slides, or donors, from which an edit is learnt one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from sst._settings import logger
from sst._validate import check_groups, check_key
from sst.editing import ByBatch, average

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sst.editing import Fitted

    from ._plan import Direction


@dataclass(frozen=True)
class Lesson:
    """What one batch of the source is learnt from: its cells, and those of each batch of the target."""

    batch: int
    source: np.ndarray
    targets: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Batches:
    """Each cell's batch.

    Attributes
    ----------
    names
        Of the batches.
    codes
        Each cell's batch, a number (n).
    """

    names: tuple[str, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, adata: AnnData, key: str) -> Self:
        """The batches that a column of obs names."""
        check_key(adata, "obs", key, name="batch_key")
        names = check_groups(adata, key)
        return cls(tuple(names), pd.Index(names).get_indexer(adata.obs[key].astype(str)))

    def lessons(self, direction: Direction) -> list[Lesson]:
        """What each batch of the source is learnt from: the batches of the target, or itself if it has cells of both groups.

        Raises
        ------
        ValueError
            No batch of a group has two cells to learn from.
        """
        there = {}
        for group, mask in ((direction.source, direction.fit_source), (str(direction.target), direction.fit_target)):
            size = np.bincount(self.codes[mask], minlength=len(self.names))
            there[group] = np.flatnonzero(size >= 2)
            if few := [self.names[b] for b in np.flatnonzero(size == 1)]:
                logger.warning("edit %s: nothing is learnt from %s, which have one cell each.", direction.name, few)
            if not len(there[group]):
                msg = f"group {group!r}: none of the batches {list(self.names)} has 2 cells of it to learn from."
                raise ValueError(msg)
        to = list(there[str(direction.target)])
        return [
            Lesson(
                int(b),
                direction.fit_source & (self.codes == b),
                tuple(direction.fit_target & (self.codes == t) for t in ([b] if b in to else to)),
            )
            for b in there[direction.source]
        ]

    def together(self, lessons: Sequence[Lesson], edits: Sequence[Fitted]) -> Fitted:
        """Each batch's own edit for its cells; for those of batches that nothing was learnt from the mean of all."""
        every = [*edits, average(edits)]
        own = np.full(len(self.names), len(edits))
        own[[lesson.batch for lesson in lessons]] = np.arange(len(edits))
        return ByBatch(tuple(every), own[self.codes])

    def table(self, directions: Sequence[Direction]) -> pd.DataFrame:
        """One row a direction and batch of the source: cells edited and learnt from, batches of the target; ``own`` edit or the others' mean."""
        rows = []
        for direction in directions:
            if direction.target is None:
                continue
            lessons = {lesson.batch: lesson for lesson in self.lessons(direction)}
            for b in np.unique(self.codes[direction.cells]):
                lesson = lessons.get(int(b))
                rows.append(
                    {
                        "source": direction.source,
                        "target": direction.target,
                        "batch": self.names[b],
                        "own": lesson is not None,
                        "n_cells": int((direction.cells & (self.codes == b)).sum()),
                        "n_fit_source": 0 if lesson is None else int(lesson.source.sum()),
                        "n_targets": 0 if lesson is None else len(lesson.targets),
                    }
                )
        return pd.DataFrame(rows, index=[str(k) for k in range(len(rows))])
