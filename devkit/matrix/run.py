"""Tries the cells, one after the other, and writes what was found."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ..rig.comfyui import pinned_comfyui
from ..rig.environment import check_disk
from ..rig.layout import DEV, MATRIX_RELEASES, ROOT, say
from ..rig.tool_environment import tool_environment
from . import page
from .cells import Cell
from .environment import (
    FOLDER,
    UnsupportedError,
    check_environment,
    make_environment,
    remove_environment,
)
from .import_guard import PACKAGE, guard

WORKS, FAILS, UNSUPPORTED = "works", "fails", "unsupported"
_SHOWN = 400
_TOOLS = (PACKAGE, "pip==26.3", "setuptools==80.9.0")
"""pip and setuptools fetch ComfyUI's archive."""


def run(cells: Sequence[Cell], keep: bool) -> int:
    """Try the cells, and record each as soon as it is known.

    Args:
        cells: those of one Python together.
        keep: whether their environments stay when all is done.

    Returns:
        The exit status: 1 if a cell fails, or ComfyUI lacks what the pack uses of it.

    Raises:
        DevError: the disk is full, or the package index cannot be reached.
    """
    check_disk()
    tools = tool_environment("matrix", _TOOLS)
    versions = {cell.comfyui for cell in cells}
    releases = [release for release in MATRIX_RELEASES if release.version in versions]
    folders = {release.version: pinned_comfyui(release, tools) for release in releases}
    bad = 0
    for version, folder in folders.items():
        found = guard(tools, folder, FOLDER / "import-guard")
        page.record_guard(version, found)
        bad += found["verdict"] != "SAFE"
        print(f"ComfyUI {version}: comfy-import-guard says {found['verdict']}", flush=True)
    for number, cell in enumerate(cells):
        say(f"[{number + 1} of {len(cells)}] {cell.name} ...")
        result = try_cell(cell, folders[cell.comfyui])
        page.record(cell, {"date": date.today().isoformat(), **result})
        bad += result["outcome"] == FAILS
        print(f"{cell.name}: {result['outcome']} {'; '.join(result['reasons'])}", flush=True)
        last = number + 1 == len(cells) or cells[number + 1].python != cell.python
        if last and not keep:
            remove_environment(cell.python)
    page.write()
    print(f"Written: {page.PAGE.name} and {page.RESULTS.name}.")
    return 1 if bad else 0


def short(text: str) -> str:
    """One line without this machine's folders, for a table; the end says what went wrong."""
    line = " ".join(text.replace(str(ROOT), "...").split())
    return line if len(line) <= _SHOWN else f"... {line[-_SHOWN:].lstrip()}"


def try_cell(cell: Cell, comfyui: Path) -> dict[str, Any]:
    """Make the cell's environment, and check it.

    Returns:
        `outcome`, the `reasons` why it is no other, `versions`, and `checks` with their details.
    """
    try:
        python = make_environment(cell, comfyui)
    except UnsupportedError as error:
        return {
            "outcome": UNSUPPORTED,
            "reasons": [short(str(error))],
            "versions": {},
            "checks": [],
        }
    work = FOLDER / "work"
    result = FOLDER / "result.json"
    result.unlink(missing_ok=True)
    command = [str(python), "-m", "vivace.devkit.matrix.check", "--comfyui", str(comfyui)]
    command += ["--work", str(work), "--result", str(result)]
    with (FOLDER / f"{cell.name}.log").open("wb") as log:
        # Not ended after some time, which would leave its server behind; each check ends by itself.
        subprocess.run(
            command, cwd=DEV, env=check_environment(), stdout=log, stderr=log, check=False
        )
    if not result.exists():
        problem = f"the checks ended early; see {log.name}"
        return {"outcome": FAILS, "reasons": [problem], "versions": {}, "checks": []}
    report = json.loads(result.read_text())
    for one in report["checks"]:
        one["detail"] = short(one["detail"])
    reasons = [f"{one['check']}: {one['detail']}" for one in report["checks"] if not one["held"]]
    return {"outcome": FAILS if reasons else WORKS, "reasons": reasons, **report}
