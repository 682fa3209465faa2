"""What a LoRA Stack's rows get from the server, in the real editor: files, information, stacks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.editor import shoot
from support.graphs import KOHYA, PEFT, row
from support.lora_editor import FLAT, INK, MISSING, WATER, Stack, three


def test_a_lora_is_added_and_changed_with_the_picker(stack: Stack, renderer: str) -> None:
    stack.page.evaluate("() => localStorage.removeItem('Vivace.RecentLoras')")
    stack.show()
    stack.element.get_by_text("Add LoRA").click()
    assert stack.options() == ["Folder people, 2 files", "Folder styles, 3 files", KOHYA, PEFT]
    shoot(stack.page, f"picker-{renderer}")
    stack.page.get_by_label("Folder styles").click()
    assert stack.options() == ["Folder anime, 1 file", INK, WATER]
    stack.page.get_by_role("option", name=INK).hover()
    expect(stack.page.locator(".vivace-thumbnail")).to_be_visible()
    shoot(stack.page, f"picker-{renderer}-folder")
    stack.page.get_by_role("option", name=INK).click()
    assert stack.rows == [row(INK)]
    stack.part(1, "file").click()
    assert stack.options()[0] == INK  # used last
    stack.page.get_by_label("Search LoRAs").fill("ada")
    assert stack.options() == ["people/Ada 9.safetensors", "people/Ada 10.safetensors"]
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
    assert stack.options() == [FLAT]
    stack.press("Backspace")
    assert stack.options()[1:] == [INK, WATER]
    stack.page.keyboard.type("e wat")
    assert stack.options() == [WATER]
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
    stack.undo()
    expect(stack.page.get_by_role("menu")).to_have_count(0)
    assert stack.on == [True]


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
    assert stack.options() == ["new.safetensors"]


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
    assert stack.options()[0] == "set 49/lora 99.safetensors"
    stack.page.get_by_label("Search LoRAs").fill("lora")
    stack.press(*["PageDown"] * 30)
    assert len(stack.options()) < 40
    assert (
        stack.page.locator("[role='option'][aria-selected='true']").get_attribute("aria-posinset")
        == "301"
    )


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


def test_info(stack: Stack, renderer: str) -> None:
    stack.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    stack.show(row(INK), row(FLAT))
    stack.menu(1, "Info")
    dialog = stack.page.get_by_role("dialog", name=f"About {INK}")
    expect(dialog.get_by_role("heading", name="Ink drawings")).to_be_visible()
    expect(dialog.get_by_alt_text(f"Preview of {INK}")).to_be_visible()
    for text in (
        "Qwen-Image",
        "4 to 16",
        "238 of 240",
        "3.0 MiB",
        "Best at 0.7.",
        "2 tensors are unknown",
        "To know",
        "the header says rank 8, the factors have rank 16",
    ):
        expect(dialog.get_by_text(text)).to_be_visible()
    shoot(stack.page, f"info-{renderer}")
    dialog.get_by_role("heading", name="Notes").click(position={"x": -8, "y": 4}, force=True)
    expect(dialog).to_be_visible()  # that was its margin, not beside it
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
    expect(sparse.locator("dt")).to_have_text(["File", "Size"])
    stack.page.mouse.click(5, 450)  # beside it
    expect(sparse).to_have_count(0)
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
    stack.undo()
    assert stack.rows == saved
    presets.click()
    stack.page.get_by_label("Delete old").click()
    assert "old" in stack.library.stacks
    stack.page.get_by_label("Delete old").click()
    expect(stack.page.get_by_label("Load old")).to_have_count(0)
    assert list(stack.library.stacks) == ["my/look ä"]


def test_stacks_go_out_and_come_in_as_files(stack: Stack, tmp_path: Path) -> None:
    mine, theirs = [row(PEFT, 0.4)], [row(INK, 1.0)]
    stack.library.stacks = {"mine": mine, "other": theirs}
    stack.show(row(INK))
    stack.element.get_by_text("Stacks").click()
    with stack.page.expect_download() as download:
        stack.page.get_by_label("Export mine").click()
    assert download.value.suggested_filename == "mine.json"
    assert json.loads(download.value.path().read_text()) == {"vivace_stacks": {"mine": mine}}
    with stack.page.expect_download() as download:
        stack.page.get_by_text("Export all").click()
    assert json.loads(download.value.path().read_text())["vivace_stacks"] == stack.library.stacks

    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"vivace_stacks": {"mine": theirs, "new": theirs}}))

    def bring_in(answer: str) -> None:
        with stack.page.expect_file_chooser() as chooser:
            stack.page.get_by_text("Import …").click()
        chooser.value.set_files(path)
        question = stack.page.get_by_role("alertdialog")
        question.get_by_text(answer).click()
        expect(question).to_have_count(0)

    bring_in("Cancel")
    assert stack.library.stacks == {"mine": mine, "other": theirs}
    bring_in("Keep mine")
    expect(stack.page.get_by_label("Load new")).to_be_visible()
    assert stack.library.stacks["mine"] == mine
    bring_in("Replace mine")
    stack.page.get_by_label("Load mine").click()
    assert stack.rows == theirs


def test_what_is_wrong_with_stacks_is_said(stack: Stack) -> None:
    stack.library.problems = ["bad.json: not JSON. Delete it."]
    stack.show(row(INK))
    stack.element.get_by_text("Stacks").click()
    expect(stack.page.get_by_text("bad.json: not JSON. Delete it.")).to_be_visible()
    stack.library.refuses = "The name is too long."
    try:
        stack.page.get_by_label("Name of the stack").fill("name")
        stack.press("Enter")
        expect(stack.page.get_by_text("That did not work: The name is too long.")).to_be_visible()
        expect(stack.page.get_by_label("Name of the stack")).to_have_value("name")
    finally:
        stack.library.refuses, stack.library.problems = "", []


def test_a_stack_is_deleted_by_keyboard_and_the_focus_stays(stack: Stack) -> None:
    stack.library.stacks = {"old": [row(PEFT, 0.4)]}
    stack.show(row(INK))
    stack.element.get_by_text("Stacks").click()
    delete = stack.page.get_by_label("Delete old")
    delete.focus()
    stack.press("Enter", "Tab")  # gives up
    delete.focus()
    stack.press("Enter")
    assert "old" in stack.library.stacks
    stack.press("Enter")
    expect(delete).to_have_count(0)
    expect(stack.page.get_by_label("Name of the stack")).to_be_focused()
    stack.press("Escape")
    expect(stack.element.get_by_label("Stacks")).to_be_focused()
