"""The nodes in the real editor, in a real browser."""

from __future__ import annotations

import json
import time

import pytest
from playwright.sync_api import Browser, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from support.editor import (
    WORKFLOW,
    editor_in,
    load,
    prompt_of,
    says_missing,
    shoot,
    stack_of,
)
from support.graphs import KOHYA, PEFT, node, row, stack_prompt
from support.steady import wait_for_canvas
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer


def open_search(page: Page) -> None:
    """Double-click the canvas; a greeting of the editor may have to be closed first."""
    names = ("Add a node...", "Search Nodes...")
    search = page.get_by_placeholder(names[0]).or_(page.get_by_placeholder(names[1])).first
    for _ in range(5):
        page.mouse.dblclick(700, 650)
        try:
            search.wait_for(timeout=3_000)
            return
        except PlaywrightTimeoutError:
            page.keyboard.press("Escape")
    shoot(page, "no-search")
    pytest.fail("the node search did not open, see no-search.png")


def test_nodes_are_found_by_search_and_added(editor: Page) -> None:
    open_search(editor)
    editor.keyboard.type("lora stack")
    editor.get_by_text("LoRA Stack").first.wait_for()
    shoot(editor, "search")
    editor.keyboard.press("Enter")
    editor.wait_for_function("() => app.graph.nodes.some(n => n.comfyClass === 'VivaceLoraStack')")


def test_every_node_can_be_created(editor: Page, client: ComfyClient) -> None:
    info = client.get_json("/object_info")
    ours = [n for n in info if info[n]["python_module"] == "custom_nodes.ComfyUI-Vivace"]
    for index, name in enumerate(ours):
        place = [120 + index % 3 * 440, 60 + index // 3 * 320]
        title = editor.evaluate(
            """([name, place]) => {
                const node = LiteGraph.createNode(name);
                app.graph.add(node);
                node.pos = place;
                if (name === "VivaceLoraStack") node.widgets[0].value = [
                    { on: true, lora: "vivace-demo-peft.safetensors", strength: 0.8 },
                    { on: false, lora: "vivace-demo-kohya.safetensors", strength: 0.5 },
                ];
                return node.title;
            }""",
            [name, place],
        )
        assert title == info[name]["display_name"]
    editor.evaluate("() => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 60]; }")
    editor.wait_for_timeout(800)
    shoot(editor, "every-node")


def test_a_saved_workflow_loads_and_runs_from_the_run_button(
    editor: Page, client: ComfyClient
) -> None:
    load(editor, WORKFLOW)
    assert not says_missing(editor)
    before = set(client.get_json("/history"))
    editor.get_by_test_id("queue-button").click()
    deadline = time.monotonic() + 120
    while not (new := set(client.get_json("/history")) - before):
        assert time.monotonic() < deadline, "the run never ended"
        editor.wait_for_timeout(200)
    outputs = client.wait(new.pop())
    saved = [image for node in outputs.values() for image in node.get("images", [])]
    assert len(saved) == 1
    editor.wait_for_timeout(1500)
    shoot(editor, "after-run")


def test_an_unknown_node_is_noticed(editor: Page) -> None:
    """The control of the test above: the editor does say when a node is missing."""
    workflow = json.loads(json.dumps(WORKFLOW))
    workflow["nodes"][0]["type"] = "VivaceNoSuchNode"
    load(editor, workflow)
    editor.wait_for_function(
        "() => document.body.innerText.toLowerCase().includes('missing node')", timeout=10_000
    )


def test_rows_can_be_edited_and_survive_saving(editor: Page) -> None:
    load(editor, WORKFLOW)
    assert stack_of(prompt_of(editor))["rows"] == {
        "__value__": [
            {"on": True, "lora": PEFT, "strength": 0.8},
            {"on": False, "lora": KOHYA, "strength": 0.5},
        ]
    }
    rows = editor.locator(".vivace-rows")
    rows.get_by_label("LoRA 2: on").check()
    rows.get_by_label("LoRA 1: strength").fill("-0.25")
    rows.get_by_text("Add LoRA").click()
    editor.get_by_label("Search LoRAs").fill("peft")
    editor.keyboard.press("Enter")
    expected = [
        {"on": True, "lora": PEFT, "strength": -0.25},
        {"on": True, "lora": KOHYA, "strength": 0.5},
        {"on": True, "lora": PEFT, "strength": 1},
    ]
    assert stack_of(prompt_of(editor))["rows"]["__value__"] == expected
    shoot(editor, "rows")

    load(editor, json.loads(json.dumps(editor.evaluate("() => app.graph.serialize()"))))
    assert stack_of(prompt_of(editor))["rows"]["__value__"] == expected
    editor.locator(".vivace-rows").get_by_label("LoRA 1: remove").click()
    assert stack_of(prompt_of(editor))["rows"]["__value__"] == expected[1:]


def test_an_api_prompt_loads_into_the_editor(editor: Page) -> None:
    load(editor, WORKFLOW)
    prompt = prompt_of(editor)
    editor.evaluate("prompt => app.loadApiJson(prompt, 'api')", prompt)
    editor.wait_for_function("count => app.graph.nodes.length === count", arg=len(prompt))
    assert stack_of(prompt_of(editor))["rows"] == stack_of(prompt)["rows"]


def test_the_report_shows_in_the_editor(editor: Page, client: ComfyClient) -> None:
    prompt = stack_prompt({"__value__": [row(PEFT, 0.5)]})
    del prompt["weights"]
    prompt["report"] = node("PreviewAny", source=["stack", 1])
    ids = {name: str(index) for index, name in enumerate(prompt, start=1)}
    numbered = {ids[name]: part for name, part in prompt.items()}
    for part in numbered.values():
        for name, value in part["inputs"].items():
            if isinstance(value, list):
                part["inputs"][name] = [ids[value[0]], value[1]]
    editor.evaluate("prompt => app.loadApiJson(prompt, 'report')", numbered)
    editor.wait_for_function("count => app.graph.nodes.length === count", arg=len(prompt))
    editor.get_by_test_id("queue-button").click()
    editor.wait_for_function(
        "() => app.graph.nodes.some(n => n.comfyClass === 'PreviewAny'"
        " && n.widgets.some(w => String(w.value).includes('LoRA rank 8 | 4 of 4')))",
        timeout=60_000,
    )
    editor.wait_for_timeout(500)
    shoot(editor, "report")


def test_inspect_shows_its_report_in_the_node(editor: Page) -> None:
    prompt = {"1": node("VivaceLoraInspect", lora=KOHYA)}
    editor.evaluate("prompt => app.loadApiJson(prompt, 'inspect')", prompt)
    editor.wait_for_function("() => app.graph.nodes.length === 1")
    assert "report_view" not in prompt_of(editor)["1"]["inputs"]
    editor.get_by_test_id("queue-button").click()
    report = editor.locator(".vivace-report", has_text="LoRA rank 16")
    report.wait_for(timeout=60_000)
    assert report.get_by_role("cell", name="6 of 6").count() == 1
    shoot(editor, "inspect")


def test_nodes_are_shown_in_the_language_of_the_editor_and_have_help(
    browser: Browser, server: ComfyServer
) -> None:
    with editor_in("zh", browser, server) as chinese:
        shown = chinese.evaluate(
            """() => {
                app.graph.clear();
                const node = LiteGraph.createNode("VivaceQwenVLBatch");
                app.graph.add(node);
                node.pos = [100, 100];
                const label = name => node.widgets.find(w => w.name === name).label;
                const output = node.outputs[0].localized_name;
                return [node.title, node.constructor.category, label("engine.model"), output];
            }"""
        )
        chinese.wait_for_timeout(1000)  # the view is fitted to the new workflow
        wait_for_canvas(chinese)
        title = chinese.evaluate(
            "() => [...app.canvas.ds.convertOffsetToCanvas(app.graph.nodes[0].pos)]"
        )
        chinese.mouse.click(title[0] + 60, title[1] - 12)
        # Older editors let their tabs cover it.
        chinese.get_by_test_id("info-button").dispatch_event("click")
        chinese.get_by_role("heading", name="Limits and errors").wait_for()
        picture = chinese.get_by_alt_text("The node QwenVL Batch")
        picture.scroll_into_view_if_needed()
        chinese.wait_for_function("image => image.naturalWidth > 300", arg=picture.element_handle())
        shoot(chinese, "chinese")
        assert chinese.get_by_role("cell", name="engine.api_key_variable", exact=True).count() == 1
    assert shown == ["QwenVL 批量", "Vivace/QwenVL", "模型", "描述"]
