"""The picture of the README: nodes that have run in a real ComfyUI, on the models of the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..doubles.demo_models import LORAS, MODEL_FILE
from ..rig.client import ComfyClient
from ..rig.layout import ROOT
from .image_files import save_node

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAME = "at_work"
PICTURE = ROOT / "docs" / "nodes_at_work.png"
PICTURE_BYTES = 120_000
EDGE = 16
Place = tuple[int, int, int, int]
# Where each node lies, and its width and height; 0 leaves the height to the editor.
PLACES: dict[str, Place] = {
    "1": (0, 0, 330, 0),
    "2": (370, 0, 440, 0),
    "3": (850, 0, 460, 740),
    "4": (370, 570, 440, 0),
    "5": (0, 140, 330, 0),
    "6": (0, 440, 330, 0),
}
_LAYOUT = """places => {
    for (const node of app.graph.nodes) {
        const [x, y, width, height] = places[node.id];
        node.pos = [x, y];
        node.setSize([width, height || node.computeSize()[1]]);
        // Or the seed that is shown would not be the one that has made the text.
        for (const widget of node.widgets)
            if (widget.name === "control_after_generate") widget.value = "fixed";
    }
    app.canvas.deselectAll();
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [60, 80];
    app.canvas.setDirty(true, true);
}"""
_BOX = """() => {
    const { x, y } = app.canvas.canvas.getBoundingClientRect();
    const title = LiteGraph.NODE_TITLE_HEIGHT;
    const [left, top] = app.canvas.ds.convertOffsetToCanvas([0, -title]);
    const right = Math.max(...app.graph.nodes.map(node => node.pos[0] + node.size[0]));
    const bottom = Math.max(...app.graph.nodes.map(node => node.pos[1] + node.size[1]));
    return { x: x + left, y: y + top, width: right, height: bottom + title };
}"""


def prompt() -> dict[str, Any]:
    """Two LoRAs of different trainers on a model, what was made of them, and small nodes."""
    peft, kohya = (lora.filename for lora in LORAS)
    rows = [{"on": True, "lora": peft, "strength": 0.8}]
    rows.append({"on": True, "lora": kohya, "strength": 0.5})
    return {
        "1": _node("UNETLoader", unet_name=MODEL_FILE, weight_dtype="default"),
        "2": _node("VivaceLoraStack", model=["1", 0], rows={"__value__": rows}),
        "3": _node(
            "VivacePreviewOutputs",
            **{"values.value0": ["2", 0], "values.value1": ["5", 0], "values.value2": ["6", 0]},
        ),
        "4": _node("VivaceLoraInspect", lora=kohya),
        "5": _node(
            "VivaceBlankImage",
            **{"width": 640, "height": 256, "color": "#f2a65a", "pattern": "gradient"},
            **{"pattern.second_color": "#3a506b", "pattern.direction": "right"},
        ),
        "6": _node(
            "VivacePromptManager",
            positive="a {lighthouse|harbour} at {time}, oil painting",
            variables="time = dawn",
            seed=3,
        ),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def shoot_at_work(page: Page, client: ComfyClient) -> int:
    """Run the prompt from the editor and write the picture; its size in bytes."""
    page.evaluate("prompt => app.loadApiJson(prompt, 'at work')", prompt())
    page.wait_for_function(f"() => app.graph.nodes.length === {len(PLACES)}")
    page.evaluate(_LAYOUT, PLACES)
    before = set(client.get_json("/history"))
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_timeout(1000)
    while not (new := set(client.get_json("/history")) - before):
        page.wait_for_timeout(500)
    client.wait(new.pop())
    page.locator(".vivace-fold:visible").get_by_role("button").press("Enter")
    page.wait_for_timeout(1000)
    page.evaluate(_LAYOUT, PLACES)
    page.wait_for_timeout(1000)
    box = page.evaluate(_BOX)
    box = {"x": box["x"] - EDGE, "y": box["y"] - EDGE} | {
        side: box[side] + 2 * EDGE for side in ("width", "height")
    }
    shot = page.screenshot(clip=box)  # pyright: ignore[reportArgumentType]
    return save_node(shot, PICTURE, PICTURE_BYTES)
