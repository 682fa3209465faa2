"""The rows of a LoRA Stack in the real editor, by mouse and by keyboard, in both renderers."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from support.editor import load, prompt_of, shoot, stack_of
from support.graphs import KOHYA, PEFT, row
from support.lora_editor import FLAT, INK, NAMES, WATER, Library, Stack

MISSING = "gone.safetensors"


@pytest.fixture(scope="module")
def library(page: Page) -> Library:
    return Library(page)


@pytest.fixture(scope="module", params=["canvas", "vue"])
def renderer(page: Page, request: pytest.FixtureRequest) -> str:
    page.evaluate(
        "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)",
        request.param == "vue",
    )
    page.wait_for_timeout(500)
    return request.param


@pytest.fixture
def stack(editor: Page, library: Library, renderer: str) -> Stack:
    library.stacks = {}
    opened = Stack(editor, library)
    if library.names != NAMES:  # another test's
        library.names = list(NAMES)
        opened.refresh()
    return opened


def three(*on: bool) -> list[dict[str, Any]]:
    states = on or (True, True, True)
    return [row(name, 1.0, state) for name, state in zip((PEFT, KOHYA, INK), states, strict=True)]


def on(stack: Stack) -> list[bool]:
    return [row["on"] for row in stack.rows]


def test_rows_are_switched_one_by_one_and_all_at_once(stack: Stack) -> None:
    stack.show(*three(True, False, True))
    every = stack.get("All LoRAs: on")
    expect(every).to_have_attribute("aria-checked", "mixed")
    stack.part(1, "on").uncheck()
    assert on(stack) == [False, False, True]
    every.click()
    assert on(stack) == [True, True, True]
    expect(every).to_have_attribute("aria-checked", "true")
    every.focus()
    stack.press("Space")
    assert on(stack) == [False, False, False]
    stack.part(2, "on").focus()
    stack.press("Enter")
    assert on(stack) == [False, True, False]


def test_a_strength_is_typed(stack: Stack) -> None:
    stack.show(row(INK, 0.8))
    strength = stack.part(1, "strength")
    expect(strength).to_have_value("0.80")
    strength.click()
    stack.page.keyboard.type("-1,25")
    stack.press("Enter")
    assert stack.rows == [row(INK, -1.25)]
    stack.page.keyboard.type("nonsense")
    stack.press("Tab")
    expect(strength).to_have_value("-1.25")
    strength.click()
    stack.page.keyboard.type("3")
    stack.press("Escape")
    assert stack.rows == [row(INK, -1.25)]


@pytest.mark.parametrize(
    ("keys", "strength"),
    [
        (["ArrowUp"], 1.05),
        (["ArrowDown", "ArrowDown"], 0.9),
        (["Shift+ArrowUp"], 1.005),
        (["Control+ArrowDown"], 0.5),
    ],
)
def test_arrow_keys_step_a_strength(stack: Stack, keys: list[str], strength: float) -> None:
    stack.show(row(INK, 1.0))
    stack.part(1, "strength").focus()
    stack.press(*keys)
    assert stack.rows == [row(INK, strength)]
    expect(stack.part(1, "strength")).to_have_attribute("aria-valuenow", f"{strength:g}")


@pytest.mark.parametrize(
    ("pixels", "keys", "strength"),
    [(40, None, 1.4), (-30, None, 0.7), (40, "Shift", 1.04), (10, "Control", 2.0)],
)
def test_a_strength_is_dragged(
    stack: Stack, pixels: int, keys: str | None, strength: float
) -> None:
    stack.show(row(INK, 1.0))
    stack.drag(stack.part(1, "strength"), pixels, 0, keys=keys)
    assert stack.rows == [row(INK, strength)]


def test_a_drag_is_the_same_at_any_zoom(stack: Stack) -> None:
    stack.show(*three())
    for zoom in (0.8, 1.7):
        stack.page.evaluate(
            "zoom => { app.canvas.ds.scale = zoom; app.canvas.setDirty(true, true); }", zoom
        )
        stack.page.wait_for_timeout(400)
        stack.drag(stack.part(1, "strength"), 20, 0)
        box = stack.part(1, "menu").bounding_box()
        assert box is not None
        stack.drag(stack.part(1, "menu"), 0, 62 * zoom)
        shoot(stack.page, f"rows-zoom-{zoom}")
    assert [(r["lora"], r["strength"]) for r in stack.rows] == [
        (INK, 1.0),
        (PEFT, 1.2),
        (KOHYA, 1.2),
    ]


def test_text_encoder_strengths_come_on_demand(stack: Stack, renderer: str) -> None:
    stack.show(row(INK, 0.8), row(FLAT, 0.5))
    expect(stack.part(1, "text encoder strength")).to_have_count(0)
    stack.menu(1, "Separate text encoder strength")
    assert stack.rows == [{**row(INK, 0.8), "strength_clip": 0.8}, row(FLAT, 0.5)]
    clip = stack.part(1, "text encoder strength")
    clip.focus()
    stack.press("Control+ArrowUp")
    assert stack.rows[0] == {**row(INK, 0.8), "strength_clip": 1.3}
    shoot(stack.page, f"rows-{renderer}-clip")
    stack.get("Separate text encoder strengths").click()
    assert [r.get("strength_clip") for r in stack.rows] == [1.3, 0.5]
    stack.get("Separate text encoder strengths").click()
    assert stack.rows == [row(INK, 0.8), row(FLAT, 0.5)]


def test_rows_are_dragged_to_another_place(stack: Stack, renderer: str) -> None:
    stack.show(*three())
    stack.drag(stack.part(1, "menu"), 5, 36)
    assert stack.names == [KOHYA, PEFT, INK]
    expect(stack.page.get_by_role("menu")).to_have_count(0)  # a drag is no click
    stack.drag(stack.part(3, "menu"), 0, -200)
    assert stack.names == [INK, KOHYA, PEFT]
    stack.drag(stack.part(2, "menu"), 0, 8)
    assert stack.names == [INK, KOHYA, PEFT]
    stack.part(1, "menu").hover()
    stack.page.mouse.down()
    stack.part(3, "file").hover()
    shoot(stack.page, f"rows-{renderer}-drag")
    stack.press("Escape")
    stack.page.mouse.up()
    assert stack.names == [INK, KOHYA, PEFT]
    expect(stack.page.get_by_role("menu")).to_have_count(0)


def test_alt_and_arrows_move_a_row_with_the_focus(stack: Stack) -> None:
    stack.show(*three())
    stack.part(1, "strength").focus()
    stack.press("Alt+ArrowDown", "Alt+ArrowDown", "Alt+ArrowDown")
    assert stack.names == [KOHYA, INK, PEFT]
    expect(stack.part(3, "strength")).to_be_focused()
    stack.part(3, "file").focus()
    stack.press("Alt+ArrowUp")
    assert stack.names == [KOHYA, PEFT, INK]
    expect(stack.part(2, "file")).to_be_focused()


def test_arrows_and_delete_work_between_rows(stack: Stack) -> None:
    stack.show(*three())
    stack.part(1, "on").focus()
    stack.press("ArrowDown")
    expect(stack.part(2, "on")).to_be_focused()
    stack.press("Delete")
    assert stack.names == [PEFT, INK]
    assert stack.page.evaluate("() => app.graph.nodes.length") == 1  # the node stays
    expect(stack.part(2, "remove")).to_be_focused()
    stack.press("Delete", "Delete")
    assert stack.rows == []
    expect(stack.get("Add LoRA").or_(stack.element.get_by_text("Add LoRA")).first).to_be_focused()


def test_the_menu_of_a_row(stack: Stack, renderer: str) -> None:
    stack.show(*three(True, True, False))
    stack.menu(2, "Move up")
    assert stack.names == [KOHYA, PEFT, INK]
    stack.menu(1, "Move down")
    assert stack.names == [PEFT, KOHYA, INK]
    stack.menu(1, "Duplicate")
    assert stack.names == [PEFT, PEFT, KOHYA, INK]
    stack.menu(2, "Remove")
    stack.menu(3, "Solo")
    assert on(stack) == [False, False, True]
    stack.menu(3, "Solo")
    assert on(stack) == [True, True, True]
    stack.part(2, "menu").click()
    shoot(stack.page, f"rows-{renderer}-menu")


def test_the_menu_by_keyboard(stack: Stack) -> None:
    stack.show(*three())
    stack.part(2, "file").focus()
    stack.press("Shift+F10")
    menu = stack.page.get_by_role("menu")
    expect(menu.get_by_role("menuitem", name="Info")).to_be_focused()
    stack.press("End")
    expect(menu.get_by_role("menuitem", name="Remove")).to_be_focused()
    stack.press("ArrowUp", "Enter")
    assert stack.names == [PEFT, KOHYA, KOHYA, INK]
    expect(stack.part(2, "file")).to_be_focused()
    stack.press("Shift+F10", "s", "Enter")
    assert on(stack) == [False, True, False, False]
    stack.press("Shift+F10", "Escape")
    expect(menu).to_have_count(0)
    expect(stack.part(2, "file")).to_be_focused()


def test_a_missing_file_shows(stack: Stack, renderer: str) -> None:
    stack.show(row(INK), row(MISSING))
    missing = stack.part(2, f"file, {MISSING}, missing")
    expect(missing).to_have_class(re.compile("vivace-rows-missing"))
    expect(missing).to_have_attribute("title", re.compile("is not in ComfyUI's loras folders"))
    expect(stack.part(1, "file")).not_to_have_class(re.compile("vivace-rows-missing"))
    shoot(stack.page, f"rows-{renderer}-missing")
    stack.library.names.append(MISSING)
    stack.refresh()
    expect(stack.part(2, "file")).not_to_have_class(re.compile("vivace-rows-missing"))


def options(stack: Stack) -> list[str]:
    found = stack.page.get_by_role("option").all()
    return [option.get_attribute("aria-label") or "" for option in found]


def test_a_lora_is_added_and_changed_with_the_picker(stack: Stack, renderer: str) -> None:
    stack.page.evaluate("() => localStorage.removeItem('Vivace.RecentLoras')")
    stack.show()
    stack.element.get_by_text("Add LoRA").click()
    assert options(stack) == ["Folder people, 2 files", "Folder styles, 3 files", KOHYA, PEFT]
    shoot(stack.page, f"picker-{renderer}")
    stack.page.get_by_label("Folder styles").click()
    assert options(stack) == ["Folder anime, 1 files", INK, WATER]
    stack.page.get_by_role("option", name=INK).hover()
    expect(stack.page.locator(".vivace-thumbnail")).to_be_visible()
    shoot(stack.page, f"picker-{renderer}-folder")
    stack.page.get_by_role("option", name=INK).click()
    assert stack.rows == [row(INK)]
    stack.part(1, "file").click()
    assert options(stack)[0] == INK  # used last
    stack.page.get_by_label("Search LoRAs").fill("ada")
    assert options(stack) == ["people/Ada 9.safetensors", "people/Ada 10.safetensors"]
    shoot(stack.page, f"picker-{renderer}-search")
    stack.page.get_by_role("option").nth(1).click()
    assert stack.names == ["people/Ada 10.safetensors"]


def test_the_picker_by_keyboard(stack: Stack) -> None:
    stack.page.evaluate("() => localStorage.removeItem('Vivace.RecentLoras')")
    stack.show(row(MISSING))
    stack.part(1, "file").focus()
    stack.press("Enter")
    search = stack.page.get_by_label("Search LoRAs")
    expect(search).to_be_focused()
    stack.press("ArrowDown", "Enter", "Enter")  # into styles, into anime
    assert options(stack) == [FLAT]
    stack.press("Backspace")
    assert options(stack)[1:] == [INK, WATER]
    stack.page.keyboard.type("e wat")
    assert options(stack) == [WATER]
    stack.press("Enter")
    assert stack.names == [WATER]
    expect(stack.part(1, "file")).to_be_focused()
    stack.press("Enter")
    expect(search).to_be_focused()
    stack.press("Escape")
    expect(search).to_have_count(0)
    expect(stack.part(1, "file")).to_be_focused()
    stack.part(1, "file").click()
    stack.page.mouse.click(900, 700)
    expect(search).to_have_count(0)
    assert stack.names == [WATER]


def test_the_picker_begins_at_the_file_of_the_row(stack: Stack) -> None:
    stack.page.evaluate("() => localStorage.removeItem('Vivace.RecentLoras')")
    stack.show(row(PEFT))
    stack.part(1, "file").click()
    chosen = stack.page.locator(".vivace-list [aria-selected='true']")
    expect(chosen).to_have_attribute("aria-label", PEFT)
    stack.press("ArrowUp", "Enter")
    assert stack.names == [KOHYA]


def test_undo_closes_what_belongs_to_the_old_rows(stack: Stack) -> None:
    stack.show(row(PEFT))
    stack.part(1, "on").click()
    stack.part(1, "file").click(button="right")
    expect(stack.page.get_by_role("menu")).to_have_count(1)
    undo(stack)
    expect(stack.page.get_by_role("menu")).to_have_count(0)
    assert on(stack) == [True]


def test_shift_adds_several(stack: Stack) -> None:
    stack.show()
    stack.element.get_by_text("Add LoRA").click()
    stack.page.get_by_label("Search LoRAs").fill("ada")
    stack.press("Shift+Enter", "ArrowDown", "Enter")
    assert stack.names == ["people/Ada 9.safetensors", "people/Ada 10.safetensors"]


def test_names_are_fetched_once(stack: Stack) -> None:
    stack.show(*three())
    stack.page.wait_for_timeout(200)
    before = stack.library.listed
    stack.show(*three())
    for _ in range(2):
        stack.part(1, "file").click()
        stack.press("Escape")
    assert stack.library.listed == before
    stack.library.names.append("new.safetensors")
    with stack.page.expect_response("**/api/vivace/loras"):
        stack.refresh()
    assert stack.library.listed == before + 1
    stack.part(1, "file").click()
    stack.page.get_by_label("Search LoRAs").fill("new")
    assert options(stack) == ["new.safetensors"]


def test_names_come_from_the_nodes_where_there_is_no_library(stack: Stack) -> None:
    stack.library.works = False
    try:
        stack.refresh()
        stack.show(row(PEFT), row(INK))
        expect(stack.part(2, f"file, {INK}, missing")).to_have_count(1)
        stack.part(2, "file").click()
        stack.page.get_by_label("Search LoRAs").fill("kohya")
        stack.press("Enter")
        assert stack.names == [PEFT, KOHYA]
        stack.element.get_by_text("Stacks").click()
        expect(stack.page.get_by_text("That did not work")).to_be_visible()
    finally:
        stack.library.works = True
        stack.refresh()


def test_ten_thousand_names_make_few_elements(stack: Stack) -> None:
    stack.library.names = [f"set {i % 50}/lora {i}.safetensors" for i in range(10_000)]
    stack.refresh()
    stack.show(row("set 1/lora 1.safetensors"))
    expect(stack.part(1, "file")).not_to_have_class(re.compile("vivace-rows-missing"))
    stack.part(1, "file").click()
    stack.page.get_by_label("Search LoRAs").fill("lora 99")
    expect(stack.page.get_by_text("280 of 10000")).to_be_visible()
    assert options(stack)[0] == "set 49/lora 99.safetensors"
    stack.page.get_by_label("Search LoRAs").fill("lora")
    stack.press(*["PageDown"] * 30)
    assert len(options(stack)) < 40
    assert stack.page.locator("[aria-selected='true']").get_attribute("aria-posinset") == "301"


FOUND = """async ([names, folder, query]) => {
    const { entriesOf, searchItems } = await import(
        "/extensions/ComfyUI-Vivace/rows/picker_items.js");
    return searchItems(entriesOf(names.map(name => ({ name }))), folder, query)
        .map(item => item.entry.name);
}"""


@pytest.mark.parametrize(
    ("folder", "query", "found"),
    [
        # the beginning of the file's name, of a word in it, elsewhere, then the folder
        ("", "ink", ["ink.pt", "a/my ink.pt", "a/pinks.pt", "ink/b.pt"]),
        ("a/", "INK", ["a/my ink.pt", "a/pinks.pt"]),
        ("", "a my", ["a/my ink.pt"]),
        ("", "my absent", []),
        ("", "lora 1", ["lora 1.pt", "lora 10.pt", "lora 2-1.pt"]),
    ],
)
def test_the_best_fits_come_first(stack: Stack, folder: str, query: str, found: list[str]) -> None:
    names = ["a/pinks.pt", "ink/b.pt", "a\\my ink.pt", "ink.pt"]
    names += ["lora 10.pt", "lora 2-1.pt", "lora 1.pt"]
    assert stack.page.evaluate(FOUND, [names, folder, query]) == found


TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"


def undo(stack: Stack, key: str = "Control+z") -> None:
    stack.press(key)
    stack.page.wait_for_timeout(400)


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
        undo(stack)
        assert stack.rows == expected
    for expected in states[1:]:
        undo(stack, "Control+y")
        assert stack.rows == expected


def test_undo_works_from_a_strength_that_was_stepped(stack: Stack) -> None:
    stack.show(row(INK, 1.0))
    stack.part(1, "strength").focus()
    stack.press("ArrowUp", "Control+z")
    expect(stack.part(1, "strength")).to_have_value("1.00")
    assert stack.rows == [row(INK, 1.0)]


def test_info(stack: Stack, renderer: str) -> None:
    stack.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    stack.show(row(INK), row(FLAT))
    stack.menu(1, "Info")
    dialog = stack.page.get_by_role("dialog", name=f"About {INK}")
    expect(dialog.get_by_role("heading", name="Ink drawings")).to_be_visible()
    expect(dialog.get_by_alt_text(f"Preview of {INK}")).to_be_visible()
    for text in ("Qwen-Image", "240", "3.0 MiB", "Best at 0.7.", "2 tensors are unknown"):
        expect(dialog.get_by_text(text)).to_be_visible()
    shoot(stack.page, f"info-{renderer}")
    dialog.get_by_text("brush pen").click()
    assert stack.page.evaluate("() => navigator.clipboard.readText()") == "brush pen"
    # As in a page over plain HTTP from another machine.
    stack.page.evaluate(
        """() => Object.defineProperty(navigator, "clipboard",
            { value: undefined, configurable: true })"""
    )
    dialog.get_by_text("Copy all").click()
    stack.page.evaluate("() => { delete navigator.clipboard; }")
    assert stack.page.evaluate("() => navigator.clipboard.readText()") == "ink drawing, brush pen"
    stack.press("Delete", "Escape")
    expect(dialog).to_have_count(0)
    stack.menu(2, "Info")  # of which nothing but the name is known
    sparse = stack.page.get_by_role("dialog", name=f"About {FLAT}")
    expect(sparse.locator("dt")).to_have_text(["File"])
    sparse.get_by_label("Close").click()
    assert stack.names == [INK, FLAT]


def test_stacks_are_saved_loaded_and_deleted(stack: Stack, renderer: str) -> None:
    saved = [row(INK, 0.8), {**row(FLAT, 0.5, False), "strength_clip": 0.2}]
    stack.library.stacks = {"old": [row(PEFT, 0.4)]}
    stack.show(*saved)
    presets = stack.element.get_by_text("Stacks")
    presets.click()
    expect(stack.page.get_by_label("Load old")).to_be_visible()
    stack.page.get_by_label("Name of the stack").fill("my/look ä")
    stack.press("Enter")
    expect(stack.page.get_by_label("Load my/look ä")).to_be_visible()
    assert stack.library.stacks["my/look ä"] == saved
    shoot(stack.page, f"presets-{renderer}")
    stack.page.get_by_label("Load old").click()
    assert stack.rows == [row(PEFT, 0.4)]
    undo(stack)
    assert stack.rows == saved
    presets.click()
    stack.page.get_by_label("Delete old").click()
    assert "old" in stack.library.stacks
    stack.page.get_by_label("Delete old").click()
    expect(stack.page.get_by_label("Load old")).to_have_count(0)
    assert list(stack.library.stacks) == ["my/look ä"]


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
        await app.loadGraphData(JSON.parse(JSON.stringify(app.graph.serialize())));
        results.push({ prompt, copy, loaded: widget(stack()).value });
    }
    return results;
}"""


def test_rows_round_trip_through_files_the_clipboard_and_the_api(stack: Stack) -> None:
    source = random.Random(5)  # noqa: S311
    lists = [random_rows(source) for _ in range(100)]
    stack.show()
    results = stack.page.evaluate(ROUND_TRIPS, lists)
    assert len(results) == 100
    for rows, result in zip(lists, results, strict=True):
        assert result == {"prompt": {"__value__": rows}, "copy": rows, "loaded": rows}


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
    stack.page.wait_for_timeout(500)
    stack.page.evaluate("() => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [120, 80]; }")
    stack.part(1, "on").click()
    stack.page.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    assert stack_of(prompt_of(stack.page))["rows"]["__value__"] == three(False, True, True)


HEIGHTS = """() => ({
    node: app.graph.nodes[0].size[1],
    space: document.querySelector(".vivace-rows").parentElement.getBoundingClientRect().bottom
        - document.querySelector(".vivace-rows-foot").getBoundingClientRect().bottom,
})"""


def test_the_node_follows_the_number_of_rows(stack: Stack, renderer: str) -> None:
    stack.show(row(INK))
    before = stack.page.evaluate(HEIGHTS)
    for count in (1, 2, 3, 4):
        stack.menu(1, "Duplicate")
        stack.page.wait_for_timeout(200)
        now = stack.page.evaluate(HEIGHTS)
        assert now["node"] == pytest.approx(before["node"] + 30 * count, abs=1)
        assert now["space"] == pytest.approx(before["space"], abs=1)
    for _ in range(4):
        stack.part(1, "remove").click()
    stack.page.wait_for_timeout(200)
    assert stack.page.evaluate(HEIGHTS) == pytest.approx(before, abs=1)
    shoot(stack.page, f"rows-{renderer}-height")


def test_the_wheel_over_rows_zooms_the_canvas(stack: Stack) -> None:
    stack.show(*three())
    stack.part(1, "strength").hover()
    stack.page.mouse.wheel(0, -200)
    stack.page.wait_for_function("() => app.canvas.ds.scale > 1")
    assert stack.rows == three()


def test_the_light_theme(stack: Stack, renderer: str) -> None:
    colour = "() => getComputedStyle(document.querySelector('.vivace-rows')).color"
    setting = "id => app.extensionManager.setting.set('Comfy.ColorPalette', id)"
    stack.show(row(INK, 0.8), row(MISSING), {**row(FLAT, 1, False), "strength_clip": 0.5})
    dark = stack.page.evaluate(colour)
    stack.page.evaluate(setting, "light")
    try:
        stack.page.wait_for_function(f"dark => ({colour})() !== dark", arg=dark)
        stack.part(1, "file").click()
        shoot(stack.page, f"rows-{renderer}-light")
        stack.press("Escape")
    finally:
        stack.page.evaluate(setting, "dark")


def test_controls_have_roles_and_names(stack: Stack) -> None:
    stack.show(row(INK))
    item = stack.element.get_by_role("list", name="LoRAs").get_by_role("listitem")
    for role, name in (
        ("switch", "LoRA 1: on"),
        ("spinbutton", "LoRA 1: strength"),
        ("button", f"LoRA 1: file, {INK}"),
        ("button", "LoRA 1: menu"),
        ("button", "LoRA 1: remove"),
    ):
        expect(item.get_by_role(role, name=name, exact=True)).to_have_count(1)  # pyright: ignore[reportArgumentType]
