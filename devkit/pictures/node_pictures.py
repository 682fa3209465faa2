"""A picture of each of our nodes, filled in as its help page says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .image_files import save_node

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTH = 420
EDGE = 12
VLM = {"engine.model": "Qwen3-VL-4B-Instruct"}
ROWS = [
    {"on": True, "lora": "styles/ink.safetensors", "strength": 1},
    {"on": True, "lora": "people/ada.safetensors", "strength": 0.6},
    {"on": False, "lora": "styles/watercolour.safetensors", "strength": 0.4},
]
# What a node is filled with where its own defaults say little; choices before what they bring.
VALUES: Mapping[str, Mapping[str, Any]] = {
    "VivaceLoraStack": {"rows": ROWS},
    "VivaceLoraLoader": {"lora": "styles/ink.safetensors", "strength": 0.8},
    "VivaceLoraInspect": {"lora": "styles/ink.safetensors"},
    "VivaceLoadSvdquantModel": {"model_name": "svdq-int4_r32-qwen-image.safetensors"},
    "VivaceQwenVL": {**VLM, "preset": "Detailed description", "prompt": "Name the colours, too."},
    "VivaceQwenVLBatch": {**VLM, "preset": "Tags", "folder": "/data/cats"},
    "VivaceGenerateText": {
        "engine.model": "Qwen3-4B-Instruct-2507",
        "prompt": "Three names for a cat.",
    },
    "VivaceResampleAudio": {"sample_rate": 48000},
    "VivaceGenerateMusic": {
        "model": "musicgen-small",
        "prompt": "slow piano, rain, warm and quiet",
    },
    "VivacePromptManager": {
        "positive": "a {red|grey} {animal} in soft light",
        "negative": "blurry",
        "variables": "animal = cat",
    },
    "VivaceApiKey": {"key_name": "MY_SERVER_API_KEY"},
    "VivaceBlankImage": {
        "width": 512,
        "height": 256,
        "color": "#ff800080",
        "pattern": "gradient",
        "pattern.second_color": "#ff800000",
        "pattern.direction": "down",
    },
    "VivacePreviewIf": {"action": "save", "filename_prefix": "good/%date:yyyy-MM-dd%"},
}
_FILL = """([name, values, width]) => {
    // The editor keeps values by the ids of nodes, also of those that are gone.
    const { lastNodeId } = app.graph.state;
    app.graph.clear();
    app.graph.state.lastNodeId = lastNodeId;
    const node = LiteGraph.createNode(name);
    app.graph.add(node);
    const missing = [];
    for (const [input, value] of Object.entries(values)) {
        const widget = node.widgets.find(one => one.name === input);
        if (!widget) { missing.push(input); continue; }
        widget.value = value;
        widget.callback?.(value);
    }
    node.pos = [0, 0];
    node.setSize([width, node.computeSize()[1]]);
    app.canvas.deselectAll();
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [140, 120];
    app.canvas.setDirty(true, true);
    return missing;
}"""
_FIT = """() => {
    const [node] = app.graph.nodes;
    node.setSize([node.size[0], node.computeSize()[1]]);
    app.canvas.setDirty(true, true);
}"""
_BOX = """() => {
    const { x, y } = app.canvas.canvas.getBoundingClientRect();
    const { pos, size } = app.graph.nodes[0];
    const [left, top] = app.canvas.ds.convertOffsetToCanvas(pos);
    const title = LiteGraph.NODE_TITLE_HEIGHT;
    return { x: x + left, y: y + top - title, width: size[0], height: size[1] + title };
}"""


def our_nodes(info: Mapping[str, Any], pack: str) -> list[str]:
    """Ids of the pack's nodes, from ComfyUI's `/object_info`."""
    return [name for name, node in info.items() if node["python_module"] == f"custom_nodes.{pack}"]


def shoot_node(page: Page, node_id: str, path: Path) -> int:
    """Write a picture of a node with the values of `VALUES`; its size in bytes.

    Raises:
        ValueError: the node lacks an input that `VALUES` names.
    """
    missing = page.evaluate(_FILL, [node_id, dict(VALUES.get(node_id, {})), WIDTH])
    if missing:
        raise ValueError(f"{node_id} has no {', '.join(missing)}; mend VALUES in {__name__}.")
    page.wait_for_timeout(500)  # widgets are placed, and some grow, a few frames later
    page.evaluate(_FIT)
    page.wait_for_timeout(500)
    box = page.evaluate(_BOX)
    box = {"x": box["x"] - EDGE, "y": box["y"] - EDGE} | {
        side: box[side] + 2 * EDGE for side in ("width", "height")
    }
    return save_node(page.screenshot(clip=box), path)  # pyright: ignore[reportArgumentType]
