"""What a run has shown, as a table for people and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .claims import Outcome, Row

PAGE, RESULTS = "gpu.md", "gpu.json"
_HEAD = """# On a real card

Written by `python3 dev.py gpu`, which measures each claim on the card of the machine that it runs
on; [gpu.json](gpu.json) has all figures. Ratios are medians, in brackets the least and the greatest
of all rounds, in each of which both sides ran by turns. A row is one of the audit of what only a
card can show, in the words of the claim; a figure is one that README or the targets name.
"""
_DRY = """
This was a dry run: there was no card, the same code ran on the CPU with tiny models, and its
figures say nothing about a card.
"""
_COLUMNS = ("what", "claim", "measured", "verdict")


def as_json(machine: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The report for machines: the machine, and a list with an entry for each claim."""
    found: list[dict[str, Any]] = []
    for row in rows:
        entry: dict[str, Any] = {
            "id": row.claim.id,
            "about": row.claim.about,
            "claim": row.claim.sentence,
            "anywhere": row.claim.anywhere,
            "measured": row.text,
            "verdict": row.outcome.value,
            "seconds": round(row.seconds, 2),
        }
        if row.held is not None:
            entry |= {"held": row.held, "values": dict(row.values)}
        found.append(entry)
    return {**machine, "claims": found}


def as_markdown(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The page for people."""
    versions, hardware = machine["versions"], machine["hardware"]
    where = hardware["gpu"] or hardware["cpu"]
    vram = "dynamic" if machine["dynamic_vram"] else "not dynamic"
    dry = _DRY if any(row.outcome is Outcome.DRY_RUN for row in rows) else ""
    lines = [
        f"{machine['date']}, {where}, {hardware['system']}, ComfyUI {versions['comfyui']},"
        f" torch {versions['torch']}, VRAM {vram}. {summary(rows)}",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *(line(row) for row in rows),
    ]
    return "\n".join([_HEAD + dry, *lines]) + "\n"


def line(row: Row) -> str:
    """A claim as a row of the table."""
    verdict = row.outcome.value
    cells = (row.claim.about, row.claim.sentence, row.text, verdict)
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def summary(rows: Sequence[Row]) -> str:
    """How many claims had which outcome."""
    counts = Counter(row.outcome for row in rows)
    parts = [f"{outcome.value}: {counts[outcome]}" for outcome in Outcome if counts[outcome]]
    return f"{len(rows)} claims: {'; '.join(parts)}."


def write(folder: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Put both into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(machine, rows), indent=1) + "\n"
    (folder / RESULTS).write_text(text, encoding="utf-8")
    (folder / PAGE).write_text(as_markdown(machine, rows), encoding="utf-8")
