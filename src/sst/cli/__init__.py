"""Subcommands of ``python -m sst``."""

from __future__ import annotations

from ._run import run

__all__ = ["run"]
