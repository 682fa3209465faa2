"""Where things are on a page, once they have come to rest.

The Vue layer follows the canvas some frames later, and a busy machine draws few frames a second: a
place that is measured before may be beside the thing when the mouse comes to it.
"""

from __future__ import annotations

from typing import TypedDict

from playwright.sync_api import Locator, Page

# What a function sees in each frame, until it was the same in four; null is never at rest.
AT_REST = """async element => {
    const look = LOOK;
    const until = performance.now() + 30_000;
    let last = null, same = 0;
    while (same < 3) {
        await new Promise(requestAnimationFrame);
        const found = JSON.stringify(look(element));
        if (performance.now() > until) throw new Error(`not at rest after 30 s: ${found}`);
        same = found !== "null" && found === last ? same + 1 : 0;
        last = found;
    }
    return JSON.parse(last);
}"""
BOX = """element => {
    if (!element.isConnected) throw new Error("the element is no longer on the page");
    const { x, y, width, height } = element.getBoundingClientRect();
    return width && height ? { x, y, width, height } : null;
}"""
# An element that is drawn at the scale of the canvas, inside one of the nodes.
IN_ITS_NODE = f"""element => {{
    const box = ({BOX})(element);
    const {{ scale, offset }} = app.canvas.ds;
    if (!box || Math.abs(box.width / element.offsetWidth / scale - 1) > 0.02) return null;
    const {{ left, top }} = app.canvas.canvas.getBoundingClientRect();
    const x = (box.x - left) / scale - offset[0], y = (box.y - top) / scale - offset[1];
    const inside = app.canvas.graph.nodes.some(({{ pos, size }}) =>
        pos[0] <= x && x < pos[0] + size[0] && pos[1] <= y && y < pos[1] + size[1]);
    return inside ? box : null;
}}"""
CANVAS = """() => {
    const { scale, offset } = app.canvas.ds;
    return [scale, ...offset, ...app.canvas.graph.nodes.flatMap(n => [...n.pos, ...n.size])];
}"""


class Box(TypedDict):
    """In pixels of the page."""

    x: float
    y: float
    width: float
    height: float


def steady_box(element: Locator) -> Box:
    """The box of an element that is shown, once it stays the same from frame to frame.

    Raises:
        Error: of Playwright; it was still moving, or not shown, after half a minute.
    """
    return element.evaluate(AT_REST.replace("LOOK", BOX))


def wait_in_its_node(element: Locator) -> None:
    """Wait until an element of a node stays where the canvas has the node, at the same scale.

    Raises:
        Error: of Playwright; it was not so after half a minute.
    """
    element.evaluate(AT_REST.replace("LOOK", IN_ITS_NODE))


def wait_for_canvas(page: Page) -> None:
    """Wait until the editor changes neither the view nor the places and sizes of nodes any more.

    Raises:
        Error: of Playwright; it still did after half a minute.
    """
    page.evaluate(AT_REST.replace("LOOK", CANVAS))
