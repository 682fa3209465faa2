"""Undo and redo of a LoRA Stack's rows in the real editor, and what becomes of saved ones."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from playwright.sync_api import expect
from support.editor import load, prompt_of, stack_of
from support.graphs import row
from support.lora_editor import INK, MISSING, NAMES, Stack, three
from support.steady import wait_for_canvas

MANY = pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.long)])
TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"


def test_every_change_is_one_step_to_undo(stack: Stack) -> None:
    stack.show(*three())
    stack.page.evaluate(f"() => {{ {TRACKER}.undoQueue.length = 0; }}")
    states = [stack.rows]

    def changed() -> None:
        states.append(stack.rows)
        assert states[-1] != states[-2]
        steps = stack.page.evaluate(f"() => {TRACKER}.undoQueue.length")
        assert steps == len(states) - 1

    stack.part(1, "on").click()
    changed()
    stack.drag(stack.part(1, "strength"), 40, 0)
    changed()
    stack.drag(stack.part(1, "menu"), 0, 70)
    changed()
    stack.part(2, "strength").click()
    stack.page.keyboard.type("0.3")
    stack.press("Enter")
    changed()
    stack.press("ArrowUp")
    changed()
    stack.press("Alt+ArrowUp")
    changed()
    stack.menu(1, "Duplicate")
    changed()
    stack.part(2, "remove").click()
    changed()
    stack.element.get_by_text("CLIP").click()
    changed()
    stack.get("All LoRAs: on").click()
    changed()
    for expected in states[-2::-1]:
        stack.undo()
        assert stack.rows == expected
    for expected in states[1:]:
        stack.undo("Control+y")
        assert stack.rows == expected


def test_undo_works_from_a_strength_that_was_stepped(stack: Stack) -> None:
    stack.show(row(INK, 1.0))
    stack.part(1, "strength").focus()
    stack.press("ArrowUp")
    stack.undo()
    expect(stack.part(1, "strength")).to_have_value("1.00")
    assert stack.rows == [row(INK, 1.0)]


def random_rows(source: random.Random) -> list[dict[str, Any]]:
    pieces = [*NAMES, MISSING, "", "a b/ü ' \" <b>.pt", "日本/語.safetensors", "x/y/z/Ω&amp;.bin"]
    rows = []
    for _ in range(source.randrange(8)):
        strength = round(source.uniform(-3, 3), source.randrange(6))
        made = row(source.choice(pieces), strength, source.random() < 0.5)
        if source.random() < 0.3:
            made["strength_clip"] = round(source.uniform(-3, 3), 3)
        rows.append(made)
    return rows


ROUND_TRIPS = """async list => {
    const widget = node => node.widgets.find(w => w.name === "rows");
    const stack = () => app.graph.nodes.find(n => n.comfyClass === "VivaceLoraStack");
    const tab = app.extensionManager.workflow.activeWorkflow; // each load would open another
    const results = [];
    for (const rows of list) {
        widget(stack()).value = rows;
        const prompt = Object.values((await app.graphToPrompt()).output)[0].inputs.rows;
        app.canvas.selectItems([stack()]);
        app.canvas.copyToClipboard();
        app.canvas.pasteFromClipboard();
        const pasted = app.graph.nodes.find(n => n !== stack());
        const copy = widget(pasted).value;
        app.graph.remove(pasted);
        const saved = JSON.parse(JSON.stringify(app.graph.serialize()));
        await app.loadGraphData(saved, true, true, tab);
        results.push({ prompt, copy, loaded: widget(stack()).value });
    }
    return results;
}"""

# Each state after the one before it, then back to the first and forth to the last.
HISTORY = """async list => {
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
    const widget = () => app.graph.nodes[0].widgets.find(w => w.name === "rows");
    const results = { undone: [], redone: [] };
    const most = 40; // of the 50 that the editor keeps
    for (let start = 0; start < list.length; start += most) {
        const part = list.slice(start, start + most);
        for (const rows of part) {
            widget().value = rows;
            app.canvas.emitBeforeChange();
            app.canvas.emitAfterChange();
        }
        const undone = [widget().value];
        for (const _ of part.slice(1)) {
            await tracker.undo();
            undone.unshift(widget().value);
        }
        results.undone.push(...undone);
        results.redone.push(widget().value);
        for (const _ of part.slice(1)) {
            await tracker.redo();
            results.redone.push(widget().value);
        }
    }
    return results;
}"""


@MANY
def test_rows_round_trip_through_files_the_clipboard_and_the_api(stack: Stack, count: int) -> None:
    source = random.Random(5)  # noqa: S311
    lists = [random_rows(source) for _ in range(count)]
    stack.show()
    results = stack.page.evaluate(ROUND_TRIPS, lists)
    assert len(results) == count
    for rows, result in zip(lists, results, strict=True):
        assert result == {"prompt": {"__value__": rows}, "copy": rows, "loaded": rows}


@MANY
def test_random_rows_are_undone_and_redone(stack: Stack, count: int) -> None:
    source = random.Random(6)  # noqa: S311
    # The number tells neighbours apart: a state like the one before it is no step.
    lists = [[*random_rows(source), row(f"{number}.safetensors")] for number in range(count)]
    stack.show()
    assert stack.page.evaluate(HISTORY, lists) == {"undone": lists, "redone": lists}


def test_an_api_prompt_loads(stack: Stack) -> None:
    rows = [row(INK, 0.8), {**row(MISSING, -1), "strength_clip": 0.5}]
    stack.show(*rows)
    prompt = prompt_of(stack.page)
    stack.page.evaluate("prompt => app.loadApiJson(prompt, 'api')", prompt)
    stack.page.wait_for_function("() => app.graph.nodes.length === 1")
    assert stack.rows == rows
    assert prompt_of(stack.page) == prompt


def test_rows_inside_a_subgraph(stack: Stack, renderer: str) -> None:
    stack.show(*three())
    stack.page.evaluate("() => { app.graph.convertToSubgraph(new Set([app.graph.nodes[0]])); }")
    assert stack_of(prompt_of(stack.page))["rows"]["__value__"] == three()
    saved = json.loads(json.dumps(stack.page.evaluate("() => app.rootGraph.serialize()")))
    load(stack.page, saved)
    stack.page.evaluate("() => app.canvas.openSubgraph(app.graph.nodes[0].subgraph)")
    stack.part(1, "on").wait_for()
    wait_for_canvas(stack.page)  # the editor fits the view to what it opens
    stack.zoom(1)
    stack.part(1, "on").click()
    stack.page.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    assert stack_of(prompt_of(stack.page))["rows"]["__value__"] == three(False, True, True)
