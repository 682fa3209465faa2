"""Summaries of several values as one text, for people or for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from .summary import Summary

Labelled = tuple[str, Summary]
"""A name for the value, and its summary."""


def as_markdown(values: Sequence[Labelled]) -> str:
    """A heading for each value, its figures as a table, and its text as a block."""
    return "\n\n".join(_section(label, summary) for label, summary in values)


def as_json(values: Sequence[Labelled]) -> str:
    """A JSON list with `label`, `kind`, `title`, `figures` and `text` of each value."""
    found = [{"label": label, **fields(summary)} for label, summary in values]
    return json.dumps(found, ensure_ascii=False, indent=2)


def fields(summary: Summary) -> dict[str, Any]:
    """A summary as JSON data; `figures` are pairs of a label and a figure, as labels may recur."""
    return {
        "kind": summary.kind,
        "title": summary.title,
        "figures": [list(figure) for figure in summary.figures],
        "text": summary.text,
    }


def _section(label: str, summary: Summary) -> str:
    lines = [f"### {_inline(label)}", "", _inline(summary.title)]
    if summary.figures:
        lines += ["", "| figure | value |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(figure)} |" for name, figure in summary.figures]
    if summary.text:
        longest = max(map(len, re.findall("`+", summary.text)), default=0)
        fence = "`" * max(3, longest + 1)
        lines += ["", fence, summary.text, fence]
    return "\n".join(lines)


def _inline(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _inline(text).replace("|", "&#124;")
