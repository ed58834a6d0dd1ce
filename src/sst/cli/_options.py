"""Options of the subcommands from a YAML file, and fields of a training's configuration from ``--set``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst._validate import describe_options

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 1 << 20  # bytes of a configuration file


def with_file(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """``argv`` of a subcommand with what ``--config FILE`` says put before it, so that what was typed wins.

    Raises
    ------
    ValueError
        The file cannot be read, or names an option that the subcommand does not have.
    """
    typed = list(argv)
    for i, word in enumerate(typed):
        name, equals, value = word.partition("=")
        if name == "--config" and (equals or i + 1 < len(typed)):
            path = Path(value if equals else typed[i + 1])
            rest = typed[:i] + typed[i + (1 if equals else 2) :]
            return [*_flags(parser, read_yaml(path), path), *rest]
    return typed


def add_config(parser: argparse.ArgumentParser) -> None:
    """Register ``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file whose keys are this command's options (output-size: 64); options typed after it win",
    )


def add_set(parser: argparse.ArgumentParser) -> None:
    """Register ``--set``."""
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="SECTION.NAME=VALUE",
        action="append",
        default=[],
        help="a field of the training's configuration, such as loss.taper=0.5 or fit.batch_size=32; repeat for more",
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The entries of a YAML file (plain values only).

    Raises
    ------
    ValueError
        It is too large, no YAML, or not a list of ``name: value``.
    """
    import yaml

    if path.stat().st_size > _MOST:
        msg = f"{path}: {path.stat().st_size} bytes are no configuration."
        raise ValueError(msg)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is no YAML: {error}"
        raise ValueError(msg) from error
    if not isinstance(entries, dict):
        msg = f"{path}: expected lines of 'option: value'."
        raise ValueError(msg)
    return {str(name): value for name, value in entries.items()}


def changed(config: Any, changes: Sequence[str]) -> Any:
    """A configuration with the fields that ``--set`` names changed; ``config`` itself if there are none.

    Raises
    ------
    ValueError
        No ``=``, or a value that the field does not take.
    TypeError
        A section or a name is not known; the message lists those that are.
    """
    import yaml

    fields = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name.strip():
            msg = f"--set {change}: expected SECTION.NAME=VALUE."
            raise ValueError(msg)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            msg = f"--set {change}: {text!r} is no value."
            raise ValueError(msg) from error
        fields[name.strip().replace(".", "__")] = tuple(value) if isinstance(value, list) else value
    return config.replace(**fields) if fields else config


def _flags(parser: argparse.ArgumentParser, entries: dict[str, Any], path: Path) -> list[str]:
    """The entries as arguments of the parser: those that have no name first."""
    options = {a.option_strings[-1].removeprefix("--"): a for a in parser._actions if a.option_strings}
    places = [a.dest for a in parser._actions if not a.option_strings]
    options = {k: v for k, v in options.items() if k not in {"help", "config"}}
    unnamed: dict[str, list[str]] = {}
    named: list[str] = []
    for key, value in entries.items():
        name = key.replace("_", "-")
        values = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        if key in places:
            unnamed[key] = values
        elif name not in options:
            msg = f"{path}: {key!r} is no option here. {describe_options(sorted([*options, *places]), name)}"
            raise ValueError(msg)
        elif options[name].nargs == 0:
            named += [f"--{name}"] if value else []
        elif isinstance(options[name], argparse._AppendAction):
            named += [part for v in values for part in (f"--{name}", v)]
        elif value is not None:
            named += [f"--{name}", *values]
    return [v for place in places for v in unnamed.get(place, [])] + named
