"""The nodes in the real editor, in a real browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from support.editor import (
    WORKFLOW,
    load,
    open_editor,
    prompt_of,
    shoot,
    stack_of,
)
from support.graphs import KOHYA, PEFT, node, row, stack_prompt
from vivace.devkit.client import ComfyClient
from vivace.devkit.server import ComfyServer
from vivace.tests.vlm.openai_server import OpenAIServer, hang


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


def says_missing(page: Page) -> bool:
    return "missing node" in page.inner_text("body").lower()


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


def ask(engine: dict[str, str], **inputs: Any) -> dict[str, Any]:
    """A QwenVL of one image, in the form of the API."""
    values: dict[str, Any] = {"engine": engine["engine"]}
    values |= {f"engine.{name}": value for name, value in engine.items() if name != "engine"}
    values |= {"images.image0": ["1", 0], "max_tokens": 24}
    return {
        "1": node("EmptyImage", width=96, height=64, batch_size=1, color=0xFF0000),
        "2": node("VivaceQwenVL", **(values | {"prompt": "What is it?"} | inputs)),
    }


def open_prompt(page: Page, prompt: dict[str, Any]) -> None:
    page.evaluate("prompt => app.loadApiJson(prompt, 'qwenvl')", prompt)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(prompt))
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find(n => n.comfyClass.startsWith("VivaceQwenVL"));
            node.pos = [460, 40];
            node.size = [460, 760];
            const other = app.graph.nodes.find(n => n !== node);
            if (other) other.pos = [40, 120];
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [40, 40];
            app.canvas.setDirty(true, true);
        }"""
    )


def test_text_grows_in_the_node(editor: Page, client: ComfyClient) -> None:
    said = "Hello, this is the beginning of"
    with OpenAIServer(hang("<think>", "hm", "</think>", said)) as server:
        engine = {"engine": "server", "address": server.url, "server_model": "tiny"}
        open_prompt(editor, ask(engine))
        editor.get_by_test_id("queue-button").click()
        editor.locator(".vivace-answer", has_text=said).wait_for(timeout=60_000)
        editor.locator(".vivace-thinking summary").click()
        editor.locator(".vivace-thinking", has_text="hm").wait_for()
        shoot(editor, "qwenvl-streaming")
        assert client.get_json("/queue")["queue_running"]  # it is not done
        client.post("/interrupt", {})
        assert server.disconnected.wait(20)


def test_text_and_report_stay_in_the_node(editor: Page) -> None:
    engine = {"engine": "local", "model": "small-qwen3_vl", "dtype": "float32"}
    plain = {"preset": "None (my prompt only)", "sampling": "greedy"}
    open_prompt(editor, ask(engine, **plain))
    inputs = prompt_of(editor)["2"]["inputs"]
    assert inputs["engine.model"] == "small-qwen3_vl"
    assert not {"live_text", "engine.address"} & inputs.keys()
    editor.get_by_test_id("queue-button").click()
    editor.locator(".vivace-timings summary").wait_for(timeout=60_000)
    editor.locator(".vivace-timings summary").click()
    report = editor.locator(".vivace-timings")
    # An older result of a node of that id may have been there first.
    expect(report.get_by_role("cell", name="prefill")).to_have_count(1, timeout=60_000)
    assert "1 encoded" in report.inner_text() or "1 from the cache" in report.inner_text()
    assert "|" not in report.inner_text()
    text = editor.locator(".vivace-answer").inner_text()
    assert text.strip()
    assert "Run to see" not in text
    times = report.locator("meter").evaluate_all("bars => bars.map(bar => [bar.value, bar.max])")
    assert len(times) >= 3
    assert max(value for value, _ in times) == times[0][1] > 0
    editor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    editor.get_by_label("Copy the text").click()
    editor.get_by_text("Copied").wait_for()
    copied = editor.evaluate("() => navigator.clipboard.readText()")
    assert " ".join(copied.split()) == " ".join(text.split())
    shoot(editor, "qwenvl")


def test_the_cache_shows_how_full_it_is(editor: Page) -> None:
    open_prompt(editor, {"1": node("VivaceQwenVLCache", action="show")})
    editor.get_by_test_id("queue-button").click()
    row = editor.locator(".vivace-report tr", has_text="images kept")
    row.wait_for(timeout=60_000)
    value, most = row.locator("meter").evaluate("bar => [bar.value, bar.max]")
    assert most == 2048
    assert 0 <= value < most
    shoot(editor, "qwenvl-cache")


def test_advanced_inputs_are_folded_away(editor: Page) -> None:
    shown = """() => {
        const node = app.graph.nodes.find(n => n.comfyClass === "VivaceQwenVL");
        return node.widgets.filter(w => node.isWidgetVisible(w)).map(w => w.name);
    }"""
    open_prompt(editor, ask({"engine": "local", "model": "small-qwen3_vl"}))
    editor.wait_for_timeout(500)
    shoot(editor, "qwenvl-folded")
    names = editor.evaluate(shown)
    assert "engine.model" in names
    assert not {"engine.dtype", "engine.attention", "system_prompt", "thinking_budget"} & set(names)
    editor.evaluate(
        "() => app.graph.nodes.find(n => n.comfyClass === 'VivaceQwenVL').toggleAdvanced()"
    )
    editor.wait_for_timeout(300)
    assert {"engine.dtype", "system_prompt"} <= set(editor.evaluate(shown))
    inputs = prompt_of(editor)["2"]["inputs"]
    assert {"engine.dtype", "system_prompt"} <= inputs.keys()  # hidden or not, they are sent


def test_a_node_keeps_its_size_through_files_and_folding(editor: Page) -> None:
    open_prompt(editor, ask({"engine": "local", "model": "small-qwen3_vl"}))
    find = "app.graph.nodes.find(n => n.comfyClass === 'VivaceQwenVL')"
    size = f"() => [...{find}.size]"
    editor.evaluate(f"() => {find}.setSize([520, 900])")
    load(editor, json.loads(json.dumps(editor.evaluate("() => app.graph.serialize()"))))
    assert editor.evaluate(size) == [520, 900]
    editor.evaluate(f"() => {find}.toggleAdvanced()")
    assert editor.evaluate(size)[1] > 900
    opened = editor.evaluate(size)
    load(editor, json.loads(json.dumps(editor.evaluate("() => app.graph.serialize()"))))
    assert editor.evaluate(size) == opened
    editor.evaluate(f"() => {find}.toggleAdvanced()")
    assert editor.evaluate(size) == [520, 900]


def test_text_goes_to_the_node_that_it_is_of(editor: Page) -> None:
    """Nodes in a subgraph may have the ids of others outside."""
    open_prompt(editor, {"1": node("VivaceQwenVL", prompt="one")})
    editor.evaluate(
        """() => {
            app.graph.convertToSubgraph(new Set([...app.graph.nodes]));
            const outer = LiteGraph.createNode("VivaceQwenVL");
            const inner = app.rootGraph.nodes[0].subgraph.nodes[0];
            outer.id = inner.id;
            app.rootGraph.add(outer);
            const text = node => node.widgets.find(w => w.name === "live_text").element.innerText;
            window.vivaceTexts = () => [outer, inner].map(text);
        }"""
    )
    send = """id => {
        const detail = { node: id, answer: `for ${id}`, thinking: "" };
        app.api.dispatchEvent(new CustomEvent("vivace.text", { detail }));
        return window.vivaceTexts();
    }"""
    inner, host = editor.evaluate(
        "() => [app.rootGraph.nodes[0].subgraph.nodes[0].id, app.rootGraph.nodes[0].id].map(String)"
    )
    path = f"{host}:{inner}"
    first = editor.evaluate(send, path)
    assert f"for {path}" not in first[0]
    assert f"for {path}" in first[1]
    second = editor.evaluate(send, inner)
    assert f"for {inner}" in second[0]
    assert f"for {path}" in second[1]


def test_nodes_are_shown_in_the_language_of_the_editor_and_have_help(
    browser: Browser, server: ComfyServer
) -> None:
    chinese = open_editor(browser, server, "zh")
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
    chinese.close()
    ComfyClient(server.url).post("/settings", {"Comfy.Locale": "en"})
    assert shown == ["QwenVL 批量", "Vivace/QwenVL", "模型", "描述"]


MIGRATED = (
    "NunchakuQwenImageLoraStackV3",
    "NunchakuZImageTurboLoraStackV4",
    "Power_Lora_Loader_rgthree",
    "AILab_QwenVL_Advanced",
    "QwenVL",
    "Qwen2.5VL",
    "BlankImage",
    "CheckImageEmpty",
    "LLMToolkitTextGenerator",
    "LLMToolkitTextGeneratorStream",
    "LLMPromptManager",
    "APIKeyInput",
    "PreviewOutputs",
)


@pytest.mark.parametrize("name", MIGRATED)
def test_a_workflow_of_another_pack_opens_with_our_nodes(editor: Page, name: str) -> None:
    file = Path(__file__).parent / "migrate" / "golden" / f"{name}.json"
    golden = json.loads(file.read_text())
    load(editor, golden["ui"]["before"], len(golden["ui"]["after"]["nodes"]))
    assert not says_missing(editor)
    for item in golden["ui"]["report"]["folded"]:
        said = f"{item['node']}: {item['old']} is part of {item['into']} now"
        assert said in editor.inner_text("body")
    prompt = prompt_of(editor)
    expected = golden["prompt"]["after"]["2"]
    assert prompt["2"]["class_type"] == expected["class_type"]
    assert prompt["2"]["_meta"]["title"] == "Mine"
    found = prompt["2"]["inputs"]
    if isinstance(found.get("rows"), dict):
        found["rows"] = found["rows"]["__value__"]
    assert found == expected["inputs"]
    assert {id_: node["class_type"] for id_, node in prompt.items()} == {
        id_: node["class_type"] for id_, node in golden["prompt"]["after"].items()
    }
    saved = editor.evaluate("() => app.graph.serialize()")
    ours = next(node for node in saved["nodes"] if node["id"] == 2)
    wanted = next(node for node in golden["ui"]["after"]["nodes"] if node["id"] == 2)
    assert [item["name"] for item in ours["inputs"]] == [item["name"] for item in wanted["inputs"]]
    count = len(wanted["widgets_values"])
    assert ours["widgets_values"][:count] == wanted["widgets_values"]
    assert saved["last_link_id"] >= max(link[0] for link in saved["links"])


@pytest.mark.parametrize("name", ["GenerateMusic", "GenerateLyrics"])
def test_music_of_another_pack_opens_with_our_nodes(editor: Page, name: str) -> None:
    golden = json.loads((Path(__file__).parent / "migrate" / "golden" / f"{name}.json").read_text())
    load(editor, golden["ui"]["before"], len(golden["ui"]["after"]["nodes"]))
    assert not says_missing(editor)
    found, expected = prompt_of(editor)["2"], golden["prompt"]["after"]["2"]
    assert found["class_type"] == expected["class_type"]
    model = next(key for key in found["inputs"] if key in ("model", "engine.model"))
    assert found["inputs"].pop(model)  # the first that this machine has
    expected["inputs"].pop(model, None)
    assert found["inputs"] == expected["inputs"]
    shoot(editor, f"migrated-{name}")
