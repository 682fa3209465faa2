"""``python -m vivace.migrate FILE...``: put our nodes in the place of other packs'.

Without -o and --in-place, nothing is written; the report says what would be done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..toolkit.json_files import JsonFileError, write_object
from .files import files_here, is_picture, read_workflow
from .rules import Known
from .workflow import migrate_workflow


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vivace.migrate", description=__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a workflow: JSON, or a PNG with one"
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="a new file; of several FILEs, a folder"
    )
    target.add_argument("--in-place", action="store_true", help="replace the JSON files themselves")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="ComfyUI's models folder, to find files that were saved without their folder",
    )
    parser.add_argument(
        "--any-model",
        action="store_true",
        help="also replace general LoRA loaders whose model is not known to be Qwen-Image, Z-Image",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 1 if a file could not be read or written."""
    options = _parser().parse_args(arguments)
    known = files_here(options.models) if options.models else Known()
    known = dataclasses.replace(known, any_model=options.any_model)
    results = [_migrate(path, options, known) for path in options.files]
    if options.json:
        print(json.dumps(results, indent=1))  # noqa: T201
    else:
        for result in results:
            print("\n".join(_lines(result)))  # noqa: T201
    return int(any("error" in result for result in results))


def _migrate(path: Path, options: argparse.Namespace, known: Known) -> dict[str, Any]:
    """What was done to one file, as JSON data."""
    result: dict[str, Any] = {"file": str(path)}
    try:
        workflow, report = migrate_workflow(read_workflow(path), known)
        result |= report.to_json() | {"lines": report.lines()}
        target = _target(path, options)
        if target is None or (options.in_place and not report.replaced):
            return result
        if options.in_place and is_picture(path):
            raise JsonFileError(path, "a picture", "Name the file for the workflow with -o")
        if not options.in_place and target.exists():
            raise JsonFileError(target, "there already", "Name another file, or move it away")
        write_object(target, workflow)
        result["written"] = str(target)
    except JsonFileError as error:
        result["error"] = str(error)
    return result


def _target(path: Path, options: argparse.Namespace) -> Path | None:
    if options.in_place:
        return path
    if options.output is not None and (len(options.files) > 1 or options.output.is_dir()):
        return options.output / f"{path.stem}.json"
    return options.output


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['file']}:"] + [f"  {line}" for line in result.get("lines", [])]
    if "written" in result:
        lines.append(f"  written: {result['written']}")
    if "error" in result:
        lines.append(f"  error: {result['error']}")
    return [line.encode("utf-8", "replace").decode() for line in lines]


if __name__ == "__main__":
    sys.exit(main())
