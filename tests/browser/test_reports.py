"""The reports of LoRA nodes in the real editor, in both renderers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from safetensors.torch import load_file, save_file
from support.editor import load, open_editor, shoot
from support.graphs import KOHYA, PEFT, node, row
from support.steady import steady_box
from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer

ODD = "vivace-test-odd.safetensors"
LOADER = node("VivaceLoraLoader", lora=KOHYA, strength=0.5)
LAYOUT = """() => {
    const places = { UNETLoader: [20, 40], VivaceLoraStack: [340, 40], VivaceLoraLoader: [340, 40],
        PreviewAny: [860, 40] };
    for (const node of app.graph.nodes) node.pos = places[node.comfyClass];
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [100, 100];
    app.canvas.setDirty(true, true);
}"""


@pytest.fixture
def odd(models: Any) -> Iterator[str]:
    """A LoRA of which a module is for no model."""
    tensors = load_file(models / "loras" / PEFT)
    some = next(iter(tensors.values()))
    tensors["diffusion_model.transformer_blocks.0.attn.nothing.lora_A.weight"] = some.clone()
    path = models / "loras" / ODD
    save_file(tensors, path)
    yield ODD
    path.unlink()


def open_graph(page: Page, lora: dict[str, Any]) -> Locator:
    prompt = {
        "1": node("UNETLoader", unet_name=MODEL_FILE, weight_dtype="default"),
        "2": {**lora, "inputs": {"model": ["1", 0], **lora["inputs"]}},
        "3": node("PreviewAny", source=["2", 1]),
    }
    page.evaluate("prompt => app.loadApiJson(prompt, 'reports')", prompt)
    page.wait_for_function("() => app.graph.nodes.length === 3")
    page.evaluate(LAYOUT)
    page.wait_for_timeout(500)
    return page.locator(".vivace-fold:visible")


def run(page: Page, client: ComfyClient) -> dict[str, Any]:
    """Press Run; the outputs by node."""
    before = set(client.get_json("/history"))
    page.get_by_test_id("queue-button").click()
    for _ in range(600):
        if new := set(client.get_json("/history")) - before:
            outputs = client.wait(new.pop())
            page.wait_for_timeout(500)  # the page hears of it a moment later
            return outputs
        page.wait_for_timeout(100)
    pytest.fail("the run never ended")


def stack(*rows: dict[str, Any]) -> dict[str, Any]:
    return node("VivaceLoraStack", rows={"__value__": list(rows)})


def height(page: Page) -> float:
    return page.evaluate("() => app.graph.getNodeById(2).size[1]")


def test_the_report_is_a_line_that_opens(
    editor: Page, client: ComfyClient, odd: str, renderer: str
) -> None:
    view = open_graph(editor, stack(row(PEFT, 0.5), row(KOHYA, 0.25), row(odd)))
    line = view.get_by_role("button")
    expect(line).to_have_text("Run to see the report.")
    expect(line).to_be_disabled()
    run(editor, client)
    expect(line).to_have_text("3 LoRAs, 14 modules, 1 not applied")
    assert line.evaluate("e => e.classList.contains('vivace-attention')")
    assert view.get_by_role("table").count() == 0  # folded away
    closed = height(editor)
    line.press("Enter")
    assert line.get_attribute("aria-expanded") == "true"
    assert height(editor) > closed + 100
    table = view.get_by_role("table")
    expect(table.get_by_role("columnheader", name="format")).to_be_visible()
    expect(table.get_by_role("cell", name="4 of 4")).to_be_visible()
    heads = table.get_by_role("columnheader").all_inner_texts()
    assert heads == ["LoRA", "format", "modules", "unmatched", "size"]  # no columns of zeros
    expect(table.get_by_role("row")).to_have_count(4)
    expect(view.locator("code", has_text="attn.nothing.lora_A")).to_have_count(1)
    box, around = steady_box(table), steady_box(view)
    assert around["x"] <= box["x"] < around["x"] + around["width"]
    editor.wait_for_timeout(300)
    shoot(editor, f"lora-report-{renderer}")
    line.click()
    expect(table).to_have_count(0)
    assert height(editor) == pytest.approx(closed, abs=1)


@pytest.mark.usefixtures("renderer")
def test_the_loader_has_a_report_too(editor: Page, client: ComfyClient) -> None:
    line = open_graph(editor, LOADER).get_by_role("button")
    run(editor, client)
    expect(line).to_have_text("1 LoRA, 6 modules")


def test_a_run_from_the_cache_shows_the_report_on_a_new_page(
    browser: Browser, server: ComfyServer, client: ComfyClient
) -> None:
    info = client.get_json("/object_info/VivaceLoraLoader")["VivaceLoraLoader"]
    if not info.get("has_intermediate_output"):
        pytest.skip("this older ComfyUI sends results of output nodes only")
    reports = []
    for _ in range(2):
        page = open_editor(browser, server)
        line = open_graph(page, LOADER).get_by_role("button")
        expect(line).to_be_disabled()
        reports.append(run(page, client)["2"]["text"])
        expect(line).to_have_text("1 LoRA, 6 modules")
        page.close()
    assert reports[0] == reports[1]  # with its times: it did not run again


@pytest.mark.usefixtures("renderer")
def test_nothing_to_report(editor: Page, client: ComfyClient) -> None:
    line = open_graph(editor, stack(row(PEFT, 1.0, on=False))).get_by_role("button")
    run(editor, client)
    expect(line).to_have_text("No LoRA is on.")
    expect(line).to_be_disabled()


@pytest.mark.usefixtures("renderer")
def test_an_open_report_stays_open_in_a_saved_workflow(editor: Page, client: ComfyClient) -> None:
    view = open_graph(editor, stack(row(PEFT, 0.75)))
    run(editor, client)
    view.get_by_role("button").click()
    tall = height(editor)
    saved = json.loads(json.dumps(editor.evaluate("() => app.graph.serialize()")))
    outputs = editor.evaluate("() => app.nodeOutputs")
    load(editor, saved)
    line = view.get_by_role("button")
    expect(line).to_have_attribute("aria-expanded", "true")
    assert height(editor) == pytest.approx(tall, abs=1)
    # What the editor does when the tab of a workflow is opened again.
    editor.evaluate("outputs => { app.nodeOutputs = outputs; }", outputs)
    expect(line).to_have_text("1 LoRA, 4 modules")


def test_the_report_in_the_light_theme(editor: Page, client: ComfyClient, odd: str) -> None:
    choose = "name => app.extensionManager.setting.set('Comfy.ColorPalette', name)"
    view = open_graph(editor, stack(row(PEFT, 0.5), row(odd, 0.25)))
    editor.evaluate(choose, "light")
    try:
        run(editor, client)
        view.get_by_role("button").click()
        editor.wait_for_timeout(500)
        shoot(editor, "lora-report-light")
        color, background = view.evaluate(
            "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
        )
    finally:
        editor.evaluate(choose, "dark")
    light = [int(part) for part in background.strip("rgba()").split(",")[:3]]
    dark = [int(part) for part in color.strip("rgba()").split(",")[:3]]
    assert min(light) > max(dark) + 100
