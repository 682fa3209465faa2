"""The rows of a LoRA Stack inside a subgraph, promoted to the node of the subgraph."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from support.editor import load, prompt_of, shoot, stack_of
from support.graphs import PEFT, row
from support.lora_editor import FLAT, INK, Stack
from support.steady import steady_box, wait_for_canvas

# What the editor's command *Promote Widget* does.
PROMOTE = """() => {
    const [node] = app.rootGraph.nodes;
    app.rootGraph.convertToSubgraph(new Set([node]));
    const [host] = app.rootGraph.nodes;
    const [inner] = host.subgraph.nodes;
    const slot = inner.inputs.find(input => input.name === "rows");
    host.subgraph.addInput("rows", String(slot.type)).connect(slot, inner);
}"""
PLACE = """() => app.rootGraph.nodes.forEach((node, index) => {
    node.pos = [60 + 440 * index, 40];
})"""


def rows_of(page: Page) -> list[dict[str, Any]]:
    return stack_of(prompt_of(page))["rows"]["__value__"]


def view(stack: Stack, count: int = 1) -> None:
    expect(stack.element).to_have_count(count)
    stack.page.evaluate(PLACE)
    stack.zoom(1)


@pytest.fixture
def promoted(stack: Stack) -> Stack:
    stack.show(row(INK, 0.8), row(PEFT, 1.0))
    graph = stack.page.evaluate("() => app.rootGraph.serialize()")
    # The editor keeps promoted values by the ids of graph and node.
    load(stack.page, {**graph, "id": str(uuid.uuid4())})
    stack.page.evaluate(PROMOTE)
    view(stack)
    return stack


def test_promoted_rows_are_edited_saved_and_sent(promoted: Stack, renderer: str) -> None:
    page = promoted.page
    shoot(page, f"rows-{renderer}-promoted")
    promoted.part(2, "on").click()
    promoted.part(1, "strength").click()
    page.keyboard.type("0.35")
    promoted.press("Enter")
    promoted.part(1, "menu").focus()
    promoted.press("Alt+ArrowDown")
    promoted.element.get_by_text("Add LoRA").click()
    page.get_by_label("Search LoRAs").fill("flat")
    promoted.press("Enter")
    expected = [row(PEFT, 1.0, False), row(INK, 0.35), row(FLAT)]
    assert rows_of(page) == expected
    # What is not frozen newer editors make observable, and cannot copy when they open a workflow.
    assert page.evaluate(
        """() => {
            const [{ value }, ...more] = app.rootGraph.nodes[0].widgets;
            return more.length === 0 && Object.isFrozen(value) && value.every(Object.isFrozen);
        }"""
    )

    saved = json.loads(page.evaluate("() => JSON.stringify(app.rootGraph.serialize())"))
    load(page, saved)
    view(promoted)
    assert rows_of(page) == expected
    expect(promoted.part(2, "strength")).to_have_value("0.35")
    promoted.part(3, "remove").click()
    assert rows_of(page) == expected[:2]
    promoted.undo()
    view(promoted)
    assert rows_of(page) == expected


def test_the_node_of_the_subgraph_has_room_for_its_rows(promoted: Stack, renderer: str) -> None:
    page = promoted.page
    for _ in range(3):
        promoted.menu(1, "Duplicate")
    wait_for_canvas(page)
    shoot(page, f"rows-{renderer}-promoted-room")
    last, remove = promoted.element.get_by_text("Add LoRA"), promoted.part(1, "remove")
    width, height = page.evaluate("() => [...app.rootGraph.nodes[0].size]")
    for control in (last, remove):
        box = steady_box(control)
        # the node lies at 180, 120 in the canvas, which begins at the left upper corner
        assert 180 <= box["x"] < box["x"] + box["width"] <= 180 + width
        assert 120 <= box["y"] < box["y"] + box["height"] <= 120 + height


def test_two_nodes_of_one_subgraph_have_rows_of_their_own(promoted: Stack) -> None:
    page = promoted.page
    page.evaluate(
        """() => {
            app.canvas.selectItems([app.rootGraph.nodes[0]]);
            app.canvas.copyToClipboard();
            app.canvas.pasteFromClipboard();
        }"""
    )
    view(promoted, 2)
    first, second = (promoted.element.nth(index) for index in (0, 1))
    for element in (first, second):
        expect(element.get_by_label("LoRA 1: strength")).to_have_value("0.80")
    second.get_by_label("LoRA 1: remove").click()
    page.wait_for_timeout(200)
    prompt = prompt_of(page)
    counts = sorted(len(node["inputs"]["rows"]["__value__"]) for node in prompt.values())
    assert counts == [1, 2]


def test_rows_that_are_no_longer_promoted_go(promoted: Stack) -> None:
    page = promoted.page
    page.evaluate(
        "() => { const { subgraph } = app.rootGraph.nodes[0];"
        " subgraph.removeInput(subgraph.inputs[0]); }"
    )
    expect(promoted.element).to_have_count(0)
    assert rows_of(page) == [row(INK, 0.8), row(PEFT, 1.0)]
