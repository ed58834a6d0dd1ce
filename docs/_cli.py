"""The page of the command line, written from the parser itself, so that it cannot go stale."""

from __future__ import annotations

import argparse
import re

from sst.cli import build_parser

INTRO = """\
# Command line

`python -m sst COMMAND` (or `sst COMMAND`, where the package is installed). Options that come before the command hold for all of them:

{common}

A command that lists `--config FILE` takes its options from that file, too; {{doc}}`whole_slides` shows one."""


def page() -> str:
    """The whole page, in Markdown."""
    parser, commands = build_parser()
    about = {choice.dest: choice.help or "" for choice in _choices(parser)}
    sections = [INTRO.format(common=_options(parser))]
    for name, command in commands.items():
        about[name] = f"{_sentence(about[name])} {_sentence(command.description or '')}"
        sections += [f"## `{name}`", about[name]]
        sections += [f"```text\n{_usage(command)}\n```", _options(command)]
        sections += [_sentence(command.epilog)] if command.epilog else []
    return "\n\n".join(sections) + "\n"


def _choices(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        a
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for a in action._choices_actions
    ]


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage in lines of up to 88 characters, wherever the page is built; no option is broken in two."""
    words = " ".join(parser.format_usage().removeprefix("usage: ").split())
    lines = [""]
    for part in re.findall(r"\[(?:[^][]|\[[^][]*\])*\]|\S+", words):
        if len(lines[-1]) + len(part) > 84:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return "\n".join(lines)


def _options(parser: argparse.ArgumentParser) -> str:
    """A definition for each argument; `--help` goes without saying."""
    listed = [a for a in parser._actions if not isinstance(a, argparse._HelpAction | argparse._SubParsersAction)]
    return "\n\n".join(
        f"{_name(action)}\n: {_meaning(action)}" for action in listed if action.help != argparse.SUPPRESS
    )


def _name(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = value if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
        value += " ..." if action.nargs in ("*", "+") else ""
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{' '.join([flag, value]).strip()}`" for flag in action.option_strings)


def _meaning(action: argparse.Action) -> str:
    text = " ".join((action.help or "").replace("%%", "%").replace("<", r"\<").split())
    if action.default in (None, False, [], argparse.SUPPRESS) or "default" in text:
        return text % {"default": action.default} if "%(default)" in text else text
    return f"{text} (default: {action.default})"


def _sentence(text: str) -> str:
    text = re.sub(r"(?<![\w`])--?[a-z][\w-]*", r"`\g<0>`", " ".join(text.split()))
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
