"""What nodesafe finds in the pack as it is published."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..rig.layout import DevError, child_environment
from ..rig.published import copy_pack
from .known import KnownCode

PACKAGE = "nodesafe==0.6.0"
LAYERS = "0,1,3,4"
"""Hashes, addresses, syntax trees, and names of dependencies. Layer 2 looks for words in any text,
comments included."""


def scan(python: Path, work: Path) -> list[dict[str, Any]]:
    """The findings: `category`, `severity`, `file`, `line`, `title`.

    Args:
        python: of an environment with `PACKAGE`.
        work: a folder for a copy of the pack.

    Raises:
        DevError: nodesafe did not run.
    """
    copy = work / "pack"
    shutil.rmtree(copy, ignore_errors=True)
    copy_pack(copy)
    program = str(python.with_name("nodesafe"))
    done = subprocess.run(
        [program, "scan", str(copy), "--layers", LAYERS, "--format", "json", "--no-llm"],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(copy)
    try:
        report = json.loads(done.stdout)
        if len(report["scan"]["layers_run"]) == len(LAYERS.split(",")):
            return report["findings"]
    except (ValueError, KeyError, TypeError):
        pass
    raise DevError(f"nodesafe did not scan the pack: {(done.stderr or done.stdout)[-500:]}")


def judge(
    findings: Sequence[dict[str, Any]],
    known: Sequence[KnownCode],
    say: Callable[[str], None] = print,
) -> int:
    """Tell what was found.

    Returns:
        The number of findings that are not explained, entries of `known` that explain nothing,
        or a file in which nothing is found, included.
    """
    left, counts = 0, Counter[KnownCode]()
    seen: set[tuple[KnownCode, str]] = set()
    for one in findings:
        entry = next((k for k in known if k.category == one["category"]), None)
        if entry is None or (entry.files and one["file"] not in entry.files):
            left += 1
            say(f"SUSPICIOUS: {one['file']}:{one['line']}: {one['severity']}: {one['title']}")
        else:
            counts[entry] += 1
            seen.add((entry, one["file"]))
    for entry in known:
        stale = [file for file in entry.files if (entry, file) not in seen]
        if stale or not counts[entry]:
            left += 1
            where = f" in {', '.join(stale)}" if stale else ""
            say(f"STALE: {entry.category}{where} is explained, but not reported")
        else:
            say(f"known: {counts[entry]} of {entry.category}: {entry.reason}")
    return left
