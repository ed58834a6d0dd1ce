"""The command line: one parser, one subcommand a file, users' errors in one line."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

from sst import __version__

from . import _benchmark, _demo, _edit, _evaluate, _generate, _prepare, _reproduce, _train
from ._options import with_file

# What is raised about input and machine (a training that diverges, a store that is unfinished: RuntimeError); all else is unforeseen.
MISTAKES = (KeyError, ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of ``python -m sst``, and those of its subcommands by name."""
    parser = argparse.ArgumentParser(prog="python -m sst", description="In silico editing of spatial transcriptomics.")
    parser.add_argument("--version", action="version", version=f"sst-editing {__version__}")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, warnings only")
    parser.add_argument(
        "--progress", action="store_true", help="progress bars also where standard error is no terminal"
    )
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (_demo, _prepare, _train, _edit, _generate, _evaluate, _reproduce, _benchmark):
        command.add_parser(subparsers)
    return parser, dict(subparsers.choices)


def run(argv: list[str]) -> int:
    """Run ``python -m sst`` with ``argv``; returns the exit status (2 for a user's mistake)."""
    parser, commands = build_parser()
    try:
        at = next((i for i, word in enumerate(argv) if word in commands), len(argv) - 1)
        named = commands.get(argv[at]) if argv else None
        argv = [*argv[: at + 1], *with_file(named, argv[at + 1 :])] if named else argv
    except (ValueError, OSError) as error:
        parser.error(str(error))
    args = parser.parse_args(argv)
    args.typed = argv
    _be_heard(quiet=args.quiet, progress=args.progress)
    try:
        return int(args.func(args) or 0)
    except KeyboardInterrupt:
        print("interrupted; the same command takes up what can be taken up.", file=sys.stderr)
        return 130
    except Exception as error:
        if args.traceback:
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        expected = isinstance(error, MISTAKES)
        kind = "" if expected and str(message) else f"{type(error).__name__}: "
        print(f"error: {kind}{message}", file=sys.stderr)
        if not expected:
            print("(python -m sst --traceback ... shows where it came from)", file=sys.stderr)
        return 2 if expected else 1


def _be_heard(*, quiet: bool, progress: bool) -> None:
    from sst._settings import logger, settings

    settings.progress = not quiet and (progress or settings.progress)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    for module in ("anndata", "spatialdata", "spatialdata_io", "zarr", "dask", "ome_zarr", "scanpy"):
        warnings.filterwarnings("ignore", module=module)
