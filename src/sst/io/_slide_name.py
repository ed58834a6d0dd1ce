"""What a slide is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NO_NAMES = {"", ".", "outs", "output"}  # what instruments call every folder


def slide_name(path: Path) -> str:
    """Name of the folder, without ``.zip``; of its parent where the folder is called as every other is."""
    place = path.resolve()
    name = place.name.removesuffix(".zip")
    return place.parent.name if name.lower() in _NO_NAMES else name
