"""QwenVL's nodes in the real editor: their text, their report, their folded inputs."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page, expect
from support.editor import load, prompt_of, shoot
from support.graphs import node
from support.openai_server import OpenAIServer, hang
from vivace.devkit.rig.client import ComfyClient


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
