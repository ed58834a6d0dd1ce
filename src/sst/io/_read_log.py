"""What a reader used, what it left, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sst._settings import logger


@dataclass
class ReadLog:
    """What was used, what was left, and why: kept in ``sdata.attrs["sst"]["read"]``."""

    files: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, status: str, count: int, why: str = "") -> None:
        """Note ``count`` things of a kind that were ``"used"`` or ``"left"``."""
        self.files.append({"what": what, "status": status, "count": int(count), "why": why})

    def skip(self, what: str, count: int, why: str) -> None:
        """Note, and log, what was left."""
        if count:
            self.add(what, "left", count, why)
            logger.warning("left %d %s: %s", count, what, why)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers: it must survive ``sdata.write``."""
        return {**self.facts, "table": {k: [row[k] for row in self.files] for k in ("what", "status", "count", "why")}}
