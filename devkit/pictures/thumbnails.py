"""The thumbnails that ComfyUI's template browser shows for our example workflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .image_files import save_thumbnail

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHAPES = (3 / 2, 2)  # least and most width by height
EDGE = 40  # around the graph, in its own units
_FIT = """([[least, most], edge]) => {
    const bounds = [Infinity, Infinity, -Infinity, -Infinity];
    const include = (x, y, width, height) => {
        bounds[0] = Math.min(bounds[0], x);
        bounds[1] = Math.min(bounds[1], y);
        bounds[2] = Math.max(bounds[2], x + width);
        bounds[3] = Math.max(bounds[3], y + height);
    };
    for (const { pos: [x, y], size: [width, height] } of app.graph.nodes)
        include(x, y - LiteGraph.NODE_TITLE_HEIGHT, width, height + LiteGraph.NODE_TITLE_HEIGHT);
    for (const { pos, size } of app.graph.groups) include(...pos, ...size);
    const [width, height] = [bounds[2] - bounds[0] + 2 * edge, bounds[3] - bounds[1] + 2 * edge];
    const shape = Math.min(Math.max(width / height, least), most);
    const box = app.canvas.canvas.getBoundingClientRect();
    const shown = Math.min(box.width, box.height * shape);
    const scale = Math.min(shown / width, shown / shape / height);
    for (const node of app.graph.nodes) node.has_errors = false; // of a pack that is not installed
    app.canvas.deselectAll();
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [
        (shown / scale - width) / 2 + edge - bounds[0],
        (shown / shape / scale - height) / 2 + edge - bounds[1],
    ];
    app.canvas.setDirty(true, true);
    return { x: box.x, y: box.y, width: shown, height: shown / shape };
}"""


def shoot_workflow(page: Page, workflow: Path) -> int:
    """Write the thumbnail of a workflow beside it; its size in bytes."""
    page.evaluate(
        "workflow => app.loadGraphData(workflow)", json.loads(workflow.read_text(encoding="utf-8"))
    )
    page.wait_for_timeout(1500)
    box = page.evaluate(_FIT, [SHAPES, EDGE])
    page.wait_for_timeout(800)
    return save_thumbnail(page.screenshot(clip=box), workflow.with_suffix(".jpg"))
