"""The results: `docs/compatibility.json`, and `docs/compatibility.md`, which is made from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..rig.layout import MATRIX_RELEASES, ROOT
from .cells import Cell, all_cells, default_cells

RESULTS = ROOT / "docs" / "compatibility.json"
PAGE = ROOT / "docs" / "compatibility.md"
_HEAD = """# Compatibility

Written by `python3 dev.py matrix`, which makes an environment for each row: ComfyUI's own
requirements at their newest versions, torch 2.11 and the transformers that is named, in some rows
with the optional packages of `pyproject.toml`. Each is checked on the CPU of a Linux machine:

- every module of the pack can be imported;
- at start-up ComfyUI imports three modules of ours and no package for us, and none of the heavy
  ones when the editor asks for all nodes;
- a real server offers every node; *LoRA Stack* applies two LoRAs to a one-block Qwen-Image exactly,
  checked against float64, and leaves it bit-equal; *Blank Image*, *Image Is Empty?* and *Preview
  Outputs* work; *QwenVL* answers two questions about an image that it encodes once, with a small
  model that this transformers has written; nothing of it left a traceback in the log;
- `vivace doctor` finds nothing broken and nothing to warn of;
- the ONNX export, JSON Schemas and the keyring work, or say what to install.

Every ComfyUI is there with every Python, and both with each transformers, alone and with optional
packages; `--all` tries the whole product. `--cell 0.27.0-py3.12` tries some rows again.
[compatibility.json](compatibility.json) has all versions and figures.
"""


def load() -> dict[str, Any]:
    """What was found so far."""
    if RESULTS.exists():
        return json.loads(RESULTS.read_text(encoding="utf-8"))
    return {"import_guard": {}, "cells": {}}


def record(cell: Cell, result: Mapping[str, Any]) -> None:
    """Keep the result of a cell in place of the one before."""
    data = load()
    data["cells"][cell.name] = dict(result)
    _save(data)


def record_guard(version: str, result: Mapping[str, Any]) -> None:
    """Keep what comfy-import-guard says of a ComfyUI."""
    data = load()
    data["import_guard"][version] = dict(result)
    _save(data)


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(load()), encoding="utf-8")


def page(data: Mapping[str, Any]) -> str:
    """The text of the page. Cells that were never tried are said to be so."""
    return (
        "\n".join([_HEAD, *_table(data["cells"]), *_reasons(data["cells"]), *_guard(data)]) + "\n"
    )


def _save(data: dict[str, Any]) -> None:
    """Write in one order, whichever cells were tried last."""
    cells, guarded = data["cells"], data["import_guard"]
    data["cells"] = {c.name: cells[c.name] for c in all_cells() if c.name in cells}
    versions = [release.version for release in MATRIX_RELEASES]
    data["import_guard"] = {name: guarded[name] for name in versions if name in guarded}
    RESULTS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _table(cells: Mapping[str, Any]) -> Iterator[str]:
    shown = [cell for cell in all_cells() if cell.name in cells or cell in default_cells()]
    tried = [cells[cell.name]["outcome"] for cell in shown if cell.name in cells]
    counts = ", ".join(f"{one}: {tried.count(one)}" for one in sorted(set(tried)))
    yield f"{len(tried)} of {len(all_cells())} combinations were tried ({counts}).\n"
    yield "| ComfyUI | Python | transformers | optional packages | torch | result | on |"
    yield "|---|---|---|---|---|---|---|"
    for cell in sorted(shown, key=_order):
        result = cells.get(cell.name, {"outcome": "not tried", "versions": {}, "date": ""})
        found = result["versions"]
        figures = (
            cell.comfyui,
            found.get("python", cell.python),
            found.get("transformers", cell.transformers),
            "yes" if cell.extras else "no",
            found.get("torch", ""),
            result["outcome"],
            result["date"],
        )
        yield f"| {' | '.join(figures)} |"
    yield ""


def _order(cell: Cell) -> tuple[object, ...]:
    """Newest ComfyUI first, then by Python."""
    newest = tuple(-int(part) for part in cell.comfyui.split("."))
    return newest, cell.python, cell.transformers, cell.extras


def _reasons(cells: Mapping[str, Any]) -> Iterator[str]:
    bad = {cell.name: cells[cell.name] for cell in all_cells() if cell.name in cells}
    bad = {name: result for name, result in bad.items() if result["reasons"]}
    if bad:
        yield "## What does not work\n"
    for name, result in bad.items():
        yield f"- {name} {result['outcome']}: {'; '.join(result['reasons'])}"
    if bad:
        yield ""


def _guard(data: Mapping[str, Any]) -> Iterator[str]:
    yield "## Names of ComfyUI\n"
    yield "What the pack uses of `comfy.*`, looked up in each ComfyUI by comfy-import-guard:\n"
    yield "| ComfyUI | files | uses | missing | called otherwise | verdict |"
    yield "|---|---:|---:|---|---|---|"
    for version, found in data["import_guard"].items():
        missing = ", ".join(map(str, found["missing"])) or "none"
        drifted = ", ".join(map(str, found["drifted"])) or "none"
        yield (
            f"| {version} | {found['files']} | {found['references']} | {missing} | {drifted} |"
            f" {found['verdict'].lower()} |"
        )
