"""Self-contained HTML reports."""

from __future__ import annotations

from ._slider import transition_slider
from ._write_leaderboard import markdown, write_leaderboard
from ._write_report import Section, Verdict, write_report

__all__ = ["Section", "Verdict", "markdown", "transition_slider", "write_leaderboard", "write_report"]
