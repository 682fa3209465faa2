"""Keys that are pasted where their names belong, in the real editor: none is kept."""

from __future__ import annotations

import base64
import json
import random
import uuid

import pytest
from playwright.sync_api import Page, expect
from support.canary import forms
from support.editor import shoot
from support.steady import wait_for_canvas
from vivace.tests.pack.vlm.test_key_shape import KEYS, NAMES
from vivace.vlm.remote.key_shape import looks_like_key

KEY = "sk-pasted-Canary-1a2b3c4d5e6f7a8b9c0d"
JUDGE = """async texts => {
    const { looksLikeKey } = await import("/extensions/ComfyUI-Vivace/key_shape.js");
    return texts.map(looksLikeKey);
}"""
SHOW = """([type, values]) => {
    const node = LiteGraph.createNode(type);
    node.pos = [60, 40];
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find(w => w.name === name);
        widget.value = value;
        widget.callback?.(value);
    }
    node.showAdvanced = true;
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [120, 80];
    app.canvas.setDirty(true, true);
    app.canvas.emitBeforeChange();
    app.canvas.emitAfterChange();
}"""
PLACE = """name => {
    const [node] = app.graph.nodes;
    const widget = node.widgets.find(w => w.name === name);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(
        [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]);
    const { left, top } = app.canvas.canvas.getBoundingClientRect();
    return [left + x, top + y];
}"""
VALUE = "name => app.graph.nodes[0].widgets.find(w => w.name === name).value"
# Everything that the editor keeps: the graph, its history, and the browser's storage.
KEPT = """() => {
    const { changeTracker } = app.extensionManager.workflow.activeWorkflow;
    const { undoQueue, redoQueue, activeState, initialState } = changeTracker;
    return JSON.stringify([app.graph.serialize(), undoQueue, redoQueue, activeState, initialState,
        { ...localStorage }, { ...sessionStorage }]);
}"""
SERVER = {"engine": "server"}
FIELDS = [
    ("VivaceApiKey", "key_name", {}),
    ("VivaceQwenVL", "engine.api_key_variable", SERVER),
    ("VivaceQwenVLBatch", "engine.api_key_variable", SERVER),
    ("VivaceGenerateText", "engine.api_key_variable", SERVER),
]


def field_of(page: Page, renderer: str, name: str) -> None:
    """Put the focus into the field of a widget, with all of its text selected."""
    if renderer == "vue":
        page.get_by_label(name, exact=True).first.click()
        page.keyboard.press("Control+a")
    else:
        wait_for_canvas(page)
        x, y = page.evaluate(PLACE, name)
        page.mouse.dblclick(x, y)
        page.locator(".graphdialog input").focus()
        page.keyboard.press("Control+a")


def give(page: Page, renderer: str, name: str, text: str) -> None:
    field_of(page, renderer, name)
    page.keyboard.insert_text(text)  # as a paste does, at once
    page.keyboard.press("Enter")
    page.wait_for_timeout(800)  # the editor keeps drafts a moment later


@pytest.mark.parametrize(("node", "name", "values"), FIELDS)
def test_a_pasted_key_is_cleared_and_kept_nowhere(
    editor: Page, renderer: str, node: str, name: str, values: dict[str, str]
) -> None:
    editor.evaluate(SHOW, [node, values])
    editor.wait_for_timeout(500)
    toasts = editor.get_by_text("That looks like an API key, and was not kept")
    before = toasts.count()
    give(editor, renderer, name, KEY)
    expect(toasts).to_have_count(before + 1)
    shoot(editor, f"api-key-{node}-{renderer}")
    assert editor.evaluate(VALUE, name) == ""
    shown = "() => [...document.querySelectorAll('input, textarea')].map(f => f.value).join()"
    assert KEY not in editor.evaluate(shown)
    give(editor, renderer, name, "LAB_API_KEY")
    assert editor.evaluate(VALUE, name) == "LAB_API_KEY"
    for step in ("Control+z", "Control+y"):
        editor.keyboard.press(step)
        editor.wait_for_timeout(400)
    kept = editor.evaluate(KEPT)
    assert "LAB_API_KEY" in kept
    assert [form for form in forms(KEY) if form.decode() in kept] == []


def test_a_key_in_a_saved_workflow_is_cleared_when_it_is_opened(editor: Page) -> None:
    editor.evaluate(SHOW, ["VivaceApiKey", {}])
    saved = editor.evaluate("() => app.graph.serialize()")
    saved["nodes"][0]["widgets_values"] = ["keyring", KEY]
    editor.evaluate("workflow => app.loadGraphData(workflow)", saved)
    editor.wait_for_timeout(500)
    assert editor.evaluate(VALUE, "key_name") == ""
    assert editor.evaluate(VALUE, "source") == "keyring"
    assert KEY not in json.dumps(editor.evaluate("() => app.graph.serialize()"))


def test_browser_and_server_agree_on_what_a_key_is(editor: Page) -> None:
    source = random.Random(11)  # noqa: S311
    texts = [*KEYS, *NAMES, "é" * 100, "x" * 101, "😀" * 100, "Bearer ü ö ä ß", "eyJ" + "ä" * 12]
    alphabet = "sk-hfghpAIza_ABCabc0123456789+/= .Bearer eyJ_API_KEY"
    for length in range(1, 120):
        texts.append("".join(source.choice(alphabet) for _ in range(length)))
        texts.append(source.randbytes(length // 2).hex())
        texts.append(base64.urlsafe_b64encode(source.randbytes(length // 2)).decode())
        texts.append("sk-" + "".join(source.choice(alphabet) for _ in range(length % 20)))
    texts += [str(uuid.UUID(bytes=source.randbytes(16))) for _ in range(20)]
    wanted = [looks_like_key(text) for text in texts]
    assert 50 < sum(wanted) < len(texts) - 50
    judged = editor.evaluate(JUDGE, texts)
    pairs = zip(texts, wanted, judged, strict=True)
    assert [text for text, ours, theirs in pairs if ours != theirs] == []
