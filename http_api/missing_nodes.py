"""Nodes of packs that are not installed here, as ours: in prompts, in the editor, and as ComfyUI's
node replacements.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import folder_paths
from aiohttp import web

import nodes

from ..migrate import Known, MigrationReport, migrate_workflow
from ..migrate.neighbors import COMMON_TYPES
from ..migrate.table import RULES

log = logging.getLogger(__name__)

# ComfyUI's own replacements rename inputs and set constants. Nodes of which values change on the
# way, or become a list of rows, only `migrate` can replace.
REPLACEABLE = ("NunchakuQwenImageLoraLoader", "BlankImage", "CheckImageEmpty")


def migrate(workflow: dict[str, Any]) -> tuple[dict[str, Any], MigrationReport]:
    """Replace what is not installed; the log tells about each node."""
    from ..nodes import generate_music, vlm_values

    known = Known(
        folder_paths.get_filename_list("loras"),
        vlm_values.MODELS.names(),
        installed=nodes.NODE_CLASS_MAPPINGS.keys(),  # pyright: ignore[reportAttributeAccessIssue]
        music_models=generate_music.MODELS.names(),
        output_types=_output_types,
    )
    found, report = migrate_workflow(workflow, known)
    if report.replaced or report.left:
        log.info("Vivace, nodes of packs that are not installed:\n%s", "\n".join(report.lines()))
    return found, report


def _output_types(class_type: str) -> Sequence[str]:
    """What nodes of a class give out, as ComfyUI has it."""
    found = nodes.NODE_CLASS_MAPPINGS.get(class_type)  # pyright: ignore[reportAttributeAccessIssue]
    if found is None:
        return COMMON_TYPES.get(class_type, ())
    return tuple(str(type_) for type_ in getattr(found, "RETURN_TYPES", ()))


async def respond(request: web.Request) -> web.Response:
    """Answer `POST /vivace/migrate`: the workflow in the body, migrated, and the report."""
    try:
        workflow = await request.json()
    except (ValueError, RecursionError):
        workflow = None
    if not isinstance(workflow, dict):
        return web.json_response({"error": "Send a workflow, as a JSON object."}, status=400)
    found, report = migrate(workflow)
    answer = report.to_json() | {"lines": report.lines()}
    return web.json_response({"workflow": found, "report": answer})


def register(server: Any) -> None:
    """Enter the replacements that ComfyUI can do by itself, unless they are there already.

    ComfyUI applies one only where the old class is not installed; older versions have none.
    """
    manager = getattr(server, "node_replace_manager", None)
    if manager is None:
        return
    from comfy_api.latest import io

    for old in REPLACEABLE:
        if manager.has_replacement(old):  # ours, or that of the pack itself
            continue
        rule = RULES[old]
        names = [(item.old, item.new) for item in rule.fields] + list(rule.widgets.items())
        inputs: list[Any] = [{"new_id": new, "old_id": name} for name, new in names]
        inputs += [{"new_id": new, "set_value": value} for new, value in rule.fixed.items()]
        manager.register(
            io.NodeReplace(
                new_node_id=rule.new,
                old_node_id=old,
                old_widget_ids=[widget.name for widget in rule.layouts[0].head],
                input_mapping=inputs,
                output_mapping=[{"new_idx": new, "old_idx": o} for o, new in rule.outputs.items()],
            )
        )
