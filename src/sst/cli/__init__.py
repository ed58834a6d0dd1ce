"""Subcommands of ``python -m sst``."""

from __future__ import annotations

from ._run import build_parser, run

__all__ = ["build_parser", "run"]
