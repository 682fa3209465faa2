"""``python -m vivace.lora inspect FILE... [--json]``: report on LoRA files from their headers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from .errors import LoraError
from .examine import inspect
from .report import Report, printable


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vivace.lora", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("inspect", help="what a file holds and what would be applied")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument("--json", action="store_true", help="every tensor name, as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 1 if a file could not be read."""
    options = _parser().parse_args(arguments)
    found: list[Report | LoraError] = []
    for path in options.files:
        try:
            found.append(inspect(path))
        except LoraError as error:
            found.append(error)
    if options.json:
        print(json.dumps([_as_json(item) for item in found], indent=1))  # noqa: T201
    else:
        for item in found:
            print(item.line() if isinstance(item, Report) else printable(str(item)))  # noqa: T201
    return int(any(isinstance(item, LoraError) for item in found))


def _as_json(item: Report | LoraError) -> dict[str, object]:
    if isinstance(item, Report):
        return item.to_json()
    return {"file": item.path, "architecture": None, "keys": [], "error": str(item)}


if __name__ == "__main__":
    sys.exit(main())
