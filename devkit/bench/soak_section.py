"""The section about the soak in ``BENCHMARKS.md``."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from ..rig.layout import ROOT
from ..soak.report import faults, figure

_NAMES = {
    "rss": "resident memory",
    "own_memory": "the same without mapped files",
    "tensor_bytes": "memory of all tensors",
    "objects": "objects of Python",
    "open_files": "open files",
    "threads": "threads",
    "networks": "networks",
    "patchers": "model patchers",
    "lora_bytes": "kept LoRAs",
    "image_bytes": "kept images",
    "prompt_bytes": "kept prompts",
}


def soak_section(report: Mapping[str, Any], machine: str) -> Iterator[str]:
    """The lines of the section, from `soak.json`."""
    yield "## Soak\n"
    command = "python3 dev.py soak --log devkit/bench/results/soak.json"
    yield f"`{command}`, {machine}, {report['date']}.\n"
    yield _method() + "\n"
    yield f"- {report['prompts']} prompts, seed {report['seed']}: {_counts(report['kinds'])}."
    yield f"- How they ended: {_counts(report['fates'])}."
    yield f"- {len(report['unexpected'])} unexpected errors or differences within the run."
    yield (
        f"- {report['repeated']} results came again and {report['checkpoints']} ran on fresh"
        f" servers; {len(report['unequal'])} of these differ."
    )
    wrong = len(faults(report))
    yield f"- {'Passed' if not wrong else f'Not passed: {wrong} faults'}."
    yield "\n![Soak](devkit/bench/results/soak.png)\n"
    span = next(iter(report["trends"].values()))["span"]
    yield f"| what | mean | growth in {span} prompts (95 %) | allowed | |\n|---|---:|---:|---:|---|"
    yield from (_row(name, trend) for name, trend in report["trends"].items())
    yield ""


def _counts(table: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in table.items())


def _row(name: str, trend: Mapping[str, Any]) -> str:
    growth, low, high = (
        figure(name, value)
        for value in (
            trend["growth"],
            trend["low"] * trend["span"],
            trend["high"] * trend["span"],
        )
    )
    mean, allowed = figure(name, trend["mean"]), figure(name, trend["allowed"])
    what = _NAMES.get(name, name)
    return f"| {what} | {mean} | {growth} ({low} .. {high}) | {allowed} | {trend['verdict']} |"


def _method() -> str:
    text = (ROOT / "devkit" / "soak" / "__init__.py").read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[1].split())
