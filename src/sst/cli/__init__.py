"""Subcommands of python -m sst."""

from __future__ import annotations

__all__: list[str] = []
