"""Self-contained HTML reports."""

from __future__ import annotations

from ._write_report import Section, Verdict, write_report

__all__ = ["Section", "Verdict", "write_report"]
