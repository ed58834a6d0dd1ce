"""Self-contained HTML reports."""

from __future__ import annotations

from ._leaderboard_tables import leaderboard_tables
from ._slider import transition_slider
from ._write_leaderboard import leaderboard_figure, leaderboard_text, markdown, write_leaderboard
from ._write_report import Section, Verdict, write_report

__all__ = [
    "Section",
    "Verdict",
    "leaderboard_figure",
    "leaderboard_tables",
    "leaderboard_text",
    "markdown",
    "transition_slider",
    "write_leaderboard",
    "write_report",
]
