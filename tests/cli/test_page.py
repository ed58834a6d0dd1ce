"""The page of the command line says everything that the parser takes, and every option says what it is for."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest

from sst.cli import build_parser

SPEC = importlib.util.spec_from_file_location("_cli", Path(__file__).parents[2] / "docs" / "_cli.py")
_, COMMANDS = build_parser()


@pytest.fixture(scope="module")
def page() -> str:
    assert SPEC is not None
    assert SPEC.loader is not None
    module = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(module)
    return str(module.page())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page(page: str, name: str) -> None:
    section = page.split(f"\n## `{name}`\n")[1].split("\n## `")[0]
    for action in COMMANDS[name]._actions:
        if not isinstance(action, argparse._HelpAction):
            for flag in action.option_strings:
                assert f"\n`{flag}" in section
            assert action.help, f"{name} {action.dest}: says nothing of itself"


def test_common_options_come_first(page: str) -> None:
    parser, _ = build_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings if flag not in ("-h", "--help")]
    assert flags
    assert all(f"\n`{flag}" in page.split("\n## ")[0] for flag in flags)


def test_usage_is_not_broken_within_an_option(page: str) -> None:
    for usage in page.split("```text\n")[1:]:
        for line in usage.split("\n```")[0].splitlines():
            assert line.count("[") == line.count("]")
            assert len(line) <= 88
