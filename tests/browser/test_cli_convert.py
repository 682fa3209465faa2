"""The prompt that the command line makes of a saved workflow is the one that the editor sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.editor import WORKFLOW, load, prompt_of
from vivace.cli.errors import CliError
from vivace.cli.server.http import Server
from vivace.cli.workflow.convert import to_prompt
from vivace.cli.workflow.widgets import choose

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from vivace.devkit.rig.server import ComfyServer

EXAMPLES = sorted((Path(__file__).parents[2] / "example_workflows").glob("*.json"))

# Everything that does not become a node of the prompt, or that becomes another one.
CHANGES = {
    "bypassed": "g => { g.getNodeById(2).mode = 4; }",
    "muted": "g => { g.getNodeById(6).mode = 2; g.getNodeById(8).mode = 2; }",
    "reroute": """g => {
        const reroute = LiteGraph.createNode("Reroute");
        g.add(reroute);
        g.getNodeById(1).connect(0, reroute, 0);
        reroute.connect(0, g.getNodeById(2), 0);
    }""",
    "primitive": """g => {
        const primitive = LiteGraph.createNode("PrimitiveNode");
        g.add(primitive);
        const sampler = g.getNodeById(5);
        primitive.connect(0, sampler, sampler.findInputSlot("steps"));
        primitive.widgets[0].value = 7;
    }""",
    "note": """g => {
        const note = LiteGraph.createNode("Note");
        g.add(note);
        note.widgets[0].value = "not a part of the prompt";
    }""",
    "subgraph": """g => {
        const inner = [4, 5].map(id => g.getNodeById(id));
        g.convertToSubgraph(new Set(inner));
    }""",
    "subgraph in a subgraph, its inside bypassed": """g => {
        g.getNodeById(2).mode = 4;
        const { node } = g.convertToSubgraph(new Set([2, 5].map(id => g.getNodeById(id))));
        g.convertToSubgraph(new Set([node, g.getNodeById(4)]));
    }""",
    "subgraph with a widget outside": """g => {
        const { subgraph, node } = g.convertToSubgraph(new Set([g.getNodeById(5)]));
        const sampler = subgraph.nodes[0];
        const slot = sampler.findInputSlot("steps");
        subgraph.inputNode.connectByType(-1, sampler, "INT", { slot });
        const input = subgraph.addInput("how_many", "INT");
        input.connect(sampler.inputs[slot], sampler);
        const widget = node.widgets.find(w => w.name === "how_many");
        widget.value = 9;
    }""",
    "dynamic combo and autogrow": """g => {
        const batch = LiteGraph.createNode("BatchImagesNode");
        g.add(batch);
        const decode = g.getNodeById(7);
        decode.connect(0, batch, 0);
        decode.connect(0, batch, 1);
        const resize = LiteGraph.createNode("ResizeImageMaskNode");
        g.add(resize);
        const combo = resize.widgets[0];
        combo.value = combo.options.values[1];
        batch.connect(0, resize, 0);
        resize.connect(0, g.getNodeById(8), 0);
    }""",
}


@pytest.fixture(scope="module")
def object_info(server: ComfyServer) -> dict[str, Any]:
    return Server(server.url, 120).object_info()


def bare(prompt: dict[str, Any]) -> dict[str, Any]:
    """What the server runs: classes and inputs."""
    return {
        id_: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for id_, node in prompt.items()
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path: Path, editor: Page, object_info: dict[str, Any]) -> None:
    workflow = json.loads(path.read_text())
    if path.stem == "qwen_image_nunchaku_loader":  # of a pack that is not installed here
        with pytest.raises(CliError, match="no nodes for NunchakuQwenImageDiTLoader"):
            to_prompt(workflow, object_info)
        return
    load(editor, workflow)
    found, remarks = to_prompt(workflow, object_info)
    assert bare(found) == bare(prompt_of(editor))
    assert remarks == []


@pytest.mark.parametrize("name", CHANGES)
def test_changed_graphs(name: str, editor: Page, object_info: dict[str, Any]) -> None:
    load(editor, WORKFLOW)
    before = prompt_of(editor)
    editor.evaluate(f"() => ({CHANGES[name]})(app.graph)")
    editor.wait_for_timeout(300)
    expected = bare(prompt_of(editor))
    if name not in ("note", "reroute"):
        assert expected != bare(before)
    saved = editor.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    found, _ = to_prompt(saved, object_info)
    assert bare(found) == expected


def test_damage(object_info: dict[str, Any]) -> None:
    damaged = json.loads(json.dumps(WORKFLOW))
    damaged["nodes"][1]["type"] = "VivaceLoraStak"
    with pytest.raises(CliError, match=r"no nodes for VivaceLoraStak \(2\); did you mean Vivace"):
        to_prompt(damaged, object_info)
    for item in damaged["nodes"]:
        item["mode"] = 2
    with pytest.raises(CliError, match="no node that runs"):
        to_prompt(damaged, object_info)
    nodes = [
        {"id": id_, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": link}]}
        for id_, link in ((1, 2), (2, 1))
    ]
    save = {"id": 3, "type": "PreviewAny", "inputs": [{"name": "source", "type": "*", "link": 3}]}
    links = [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 1, 0, "*"], [3, 1, 0, 3, 0, "*"]]
    with pytest.raises(CliError, match="go round in a circle"):
        to_prompt({"nodes": [*nodes, save], "links": links}, object_info)


def test_alternatives() -> None:
    assert {choose("a {b|c{d|e}} f") for _ in range(200)} == {"a b f", "a cd f", "a ce f"}
    assert choose(r"\{a\|b\} /* no */c // d") == "{a|b} c "
    assert choose("{a") == "a"
