"""The way in: a workflow of either format."""

from __future__ import annotations

import copy
from typing import Any

from .api_format import migrate_prompt
from .report import MigrationReport
from .rules import Known
from .ui_format import migrate_graphs


def migrate_workflow(
    workflow: dict[str, Any], known: Known | None = None
) -> tuple[dict[str, Any], MigrationReport]:
    """Replace nodes of other packs by ours, values and links carried over.

    A node of which some value or link finds no place that matters stays as it is; so do nodes that
    are unknown or malformed. Ids, positions, titles, modes and groups are kept.

    Args:
        workflow: as the editor saves it, or a prompt as the server takes it; not changed.
        known: names of the files here, to find those that were saved without their folder.

    Returns:
        The new workflow, or the same if it cannot be copied, and what was done.
    """
    report = MigrationReport()
    try:
        found = copy.deepcopy(workflow)
    except RecursionError:
        report.problems.append("lists or objects nested too deeply; it stays as it is")
        return workflow, report
    known = known or Known()
    if isinstance(found.get("nodes"), list):
        migrate_graphs(found, known, report)
    elif _is_prompt(found):
        migrate_prompt(found, known, report)
    elif isinstance(found.get("prompt"), dict) and _is_prompt(found["prompt"]):
        migrate_prompt(found["prompt"], known, report)
    else:
        report.problems.append("neither a workflow of the editor nor a prompt for the server")
    return found, report


def _is_prompt(value: dict[str, Any]) -> bool:
    return any(isinstance(node, dict) and "class_type" in node for node in value.values())
