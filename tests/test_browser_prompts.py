"""The library of prompts in Prompt Manager, in the real editor with the real routes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from support.editor import load, prompt_of, shoot
from vivace.devkit.client import ComfyClient
from vivace.devkit.server import ComfyServer
from vivace.toolkit.prompt_library import Prompt, PromptLibrary, Run

CAT = Prompt("a {red|grey} cat", "blurry", ("animal", "pet"), "the neighbour's")
OWL = Prompt("an owl at night", "", ("animal",))
SHIP = Prompt("a sailing ship in a gale", "calm sea")
SHOW = """values => {
    const node = LiteGraph.createNode("VivacePromptManager");
    node.pos = [60, 40];
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find(w => w.name === name);
        widget.value = value;
        widget.callback?.(value);
    }
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [120, 80];
    app.canvas.setDirty(true, true);
}"""
REFRESH = """async () => {
    const library = await import("/extensions/ComfyUI-Vivace/prompts/library.js");
    await library.refreshPrompts();
}"""
RECORD = "() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange(); }"
VALUES = """() => Object.fromEntries(app.graph.nodes[0].widgets
    .filter(w => w.serialize !== false).map(w => [w.name, w.value]))"""


class Manager:
    """The only Prompt Manager of an editor's graph, and its user's library on the disk."""

    def __init__(self, page: Page, library: PromptLibrary) -> None:
        self.page = page
        self.library = library
        self.element = page.locator(".vivace-rows:visible")
        self.name = self.element.get_by_label(re.compile("^Prompt: "))
        self.search = page.get_by_label("Search prompts")
        self.question = page.get_by_role("alertdialog")

    def show(self, **values: Any) -> None:
        self.page.evaluate("() => { app.graph.clear(); app.extensionManager.toast.removeAll(); }")
        # The editor keeps the values of a removed node for the next one of its number.
        nothing = {"prompt": "", "positive": "", "negative": "", "variables": "", "seed": 0}
        self.page.evaluate(SHOW, nothing | values)
        self.element.wait_for()
        self.page.wait_for_timeout(200)  # the editor places a new widget a frame or two later
        self.page.evaluate(REFRESH)  # the files were changed by the test
        self.page.evaluate(RECORD)

    def browse(self) -> None:
        with self.page.expect_response("**/api/vivace/prompts"):
            self.name.click()
        expect(self.search).to_be_focused()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def command(self, name: str) -> Locator:
        return self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True)

    def expect_options(self, *labels: str) -> None:
        options = self.page.get_by_role("option")
        expect(options).to_have_count(len(labels))
        for place, label in enumerate(labels):
            expect(options.nth(place)).to_have_attribute("aria-label", label)

    def expect_toast(self, *texts: str) -> None:
        for text in texts:
            expect(self.page.get_by_text(text).last).to_be_visible()

    @property
    def values(self) -> dict[str, Any]:
        return self.page.evaluate(VALUES)

    @property
    def texts(self) -> tuple[str, str, str]:
        values = self.values
        return values["prompt"], values["positive"], values["negative"]


@pytest.fixture
def folder(server: ComfyServer) -> Iterator[Path]:
    path = server.work / "user" / "default" / "vivace" / "prompts"
    shutil.rmtree(path, ignore_errors=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def manager(editor: Page, folder: Path, renderer: str) -> Manager:
    library = PromptLibrary(folder)
    for name, prompt in {"animals/cat": CAT, "animals/night/owl": OWL, "ship": SHIP}.items():
        library.save(name, prompt)
    return Manager(editor, library)


def test_a_prompt_is_found_and_chosen_by_mouse(manager: Manager, renderer: str) -> None:
    manager.show()
    expect(manager.name).to_have_text("Choose a prompt")
    manager.browse()
    manager.expect_options("Folder animals, 2 prompts", "ship")
    shoot(manager.page, f"prompts-{renderer}")
    manager.page.get_by_label("Folder animals").click()
    manager.expect_options("Folder night, 1 prompt", "animals/cat")
    manager.page.get_by_label("Folder", exact=True).get_by_text("All").click()
    manager.page.get_by_role("group", name="Tags").get_by_text("animal").click()
    manager.expect_options("animals/cat", "animals/night/owl")
    manager.page.get_by_role("option", name="animals/cat").hover()
    expect(manager.page.locator(".vivace-prompts-text")).to_contain_text("a {red|grey} cat")
    shoot(manager.page, f"prompts-{renderer}-tags")
    manager.page.get_by_role("option", name="animals/cat").click()
    expect(manager.search).to_have_count(0)
    assert manager.texts == ("animals/cat", "a {red|grey} cat", "blurry")
    expect(manager.name).to_have_text("animals/cat")
    shoot(manager.page, f"prompts-{renderer}-chosen")
    sent = next(iter(prompt_of(manager.page).values()))["inputs"]
    assert (sent["prompt"], sent["positive"]) == ("animals/cat", "a {red|grey} cat")
    assert set(sent) == {"prompt", "positive", "negative", "variables", "seed"}


def test_a_prompt_is_chosen_by_keyboard_and_undone(manager: Manager) -> None:
    manager.show(positive="mine")
    manager.name.focus()
    manager.press("Enter")
    expect(manager.search).to_be_focused()
    expect(manager.page.get_by_role("option")).to_have_count(2)
    manager.press("ArrowDown", "ArrowUp", "Enter", "Backspace")
    manager.expect_options("Folder animals, 2 prompts", "ship")
    manager.page.keyboard.type("sailing gale")  # words of the text
    manager.expect_options("ship")
    active = manager.search.get_attribute("aria-activedescendant")
    expect(manager.page.get_by_role("option", name="ship")).to_have_attribute("id", active or "")
    manager.press("Enter")
    expect(manager.name).to_be_focused()
    assert manager.texts == ("ship", SHIP.positive, SHIP.negative)
    for key, texts in (("z", ("", "mine", "")), ("y", ("ship", SHIP.positive, SHIP.negative))):
        manager.press(f"Control+{key}")
        manager.page.wait_for_timeout(500)  # the editor loads the other graph
        assert manager.texts == texts
        expect(manager.name).to_have_text(texts[0] or "Choose a prompt")
    manager.name.click()
    manager.press("Escape")
    expect(manager.search).to_have_count(0)
    expect(manager.name).to_be_focused()


def test_by_name_alone_and_how_the_texts_compare(manager: Manager) -> None:
    manager.show()
    manager.browse()
    manager.search.fill("owl")
    manager.command("Use by name").click()
    assert manager.texts == ("animals/night/owl", "", "")
    expect(manager.name).to_have_attribute("aria-label", "Prompt: animals/night/owl, by name")
    manager.show(prompt="ship", positive="a raft")
    expect(manager.name).to_have_attribute("aria-label", "Prompt: ship, edited")
    manager.show(prompt="boat")
    expect(manager.name).to_have_attribute("aria-label", "Prompt: boat, missing")
    manager.show(prompt="boat", positive="a boat")
    expect(manager.name).to_have_attribute("aria-label", "Prompt: boat")


def test_a_text_is_saved_and_another_is_replaced_only_if_asked(
    manager: Manager, renderer: str
) -> None:
    manager.show(positive="a fox", negative="fog")
    manager.element.get_by_text("Save").click()
    expect(manager.page.get_by_label("Name, with folders")).to_be_focused()
    manager.page.keyboard.type("animals/fox")
    manager.press("Tab")
    manager.page.keyboard.type("animal, red , animal")
    manager.press("Enter")
    expect(manager.page.get_by_role("dialog")).to_have_count(0)
    fox = Prompt("a fox", "fog", ("animal", "red"))
    assert manager.library.load("animals/fox") == fox
    expect(manager.name).to_have_text("animals/fox")
    manager.show(positive="a raft", prompt="ship")
    manager.element.get_by_text("Save").click()
    manager.press("Enter")
    expect(manager.question).to_contain_text("There is a prompt ship. Replace it?")
    expect(manager.question).to_contain_text(SHIP.positive)
    shoot(manager.page, f"prompts-{renderer}-replace")
    manager.press("Escape")
    expect(manager.question).to_have_count(0)
    assert manager.library.load("ship") == SHIP
    manager.press("Enter")
    manager.question.get_by_text("Replace", exact=True).click()
    expect(manager.page.get_by_role("dialog")).to_have_count(0)
    assert manager.library.load("ship") == Prompt("a raft")


def test_what_another_has_saved_meanwhile_is_shown_and_kept(manager: Manager) -> None:
    manager.show(positive="a raft")
    manager.element.get_by_text("Save").click()
    manager.page.keyboard.type("boat")
    manager.library.save("boat", Prompt("their boat"))
    manager.press("Enter")
    expect(manager.question).to_contain_text("boat was changed elsewhere just now")
    expect(manager.question).to_contain_text("their boat")
    manager.library.save("boat", Prompt("their newer boat"))
    manager.question.get_by_text("Replace", exact=True).click()
    expect(manager.question).to_contain_text("their newer boat")
    assert manager.library.load("boat") == Prompt("their newer boat")
    manager.press("Escape")
    manager.library.delete("boat")
    manager.press("Enter")  # of the form, which has seen the newer one
    manager.question.get_by_text("Replace", exact=True).click()
    expect(manager.page.get_by_role("dialog")).to_have_count(0)
    assert manager.library.load("boat") == Prompt("a raft")


def test_prompts_are_renamed_moved_and_deleted(manager: Manager, renderer: str) -> None:
    manager.show(prompt="ship")
    manager.browse()
    manager.search.fill("ship")
    manager.press("F2")
    expect(manager.page.get_by_role("textbox", name="New name")).to_be_focused()
    manager.page.keyboard.type("sea/big ship")
    shoot(manager.page, f"prompts-{renderer}-rename")
    manager.press("Enter")
    manager.expect_options("sea/big ship")
    assert manager.library.load("sea/big ship") == SHIP
    assert manager.texts[0] == "sea/big ship"
    manager.press("F2")
    manager.page.keyboard.type("animals/cat")
    manager.press("Enter")
    manager.expect_toast("sea/big ship was not renamed", "there is a prompt 'animals/cat' already")
    manager.command("Delete").click()
    expect(manager.question).to_contain_text("Delete sea/big ship from the library?")
    manager.press("Escape")
    expect(manager.search).to_be_focused()
    manager.command("Delete").click()
    manager.library.save("sea/big ship", OWL)
    manager.question.get_by_text("Delete", exact=True).click()
    manager.expect_toast("'sea/big ship' has been changed meanwhile")
    assert manager.library.load("sea/big ship") == OWL
    manager.search.fill("big ship")
    manager.press("F2")
    manager.command("Delete").focus()
    manager.press("Enter")
    expect(manager.question).to_have_count(1)  # the other one has gone
    manager.press("Shift+Tab", "Enter")
    expect(manager.page.get_by_role("option")).to_have_count(0)
    assert list(manager.library.list().prompts) == ["animals/cat", "animals/night/owl"]


def test_a_run_is_got_back_as_it_was(manager: Manager, renderer: str) -> None:
    manager.library.record(Run("ship", "a {raw} | text", "none", 7, {"x": "y"}))
    manager.library.record(Run("", "a cat", "", 8))
    manager.show(positive="other", seed=1)
    manager.element.get_by_text("History").click()
    expect(manager.page.get_by_role("option")).to_have_count(2)
    shoot(manager.page, f"prompts-{renderer}-history")
    manager.page.keyboard.type("raw")
    expect(manager.page.get_by_role("option")).to_have_count(1)
    manager.press("Enter")
    assert manager.texts == ("ship", r"a \{raw\} \| text", "none")
    assert manager.values["seed"] == 7
    manager.element.get_by_text("History").click()
    expect(manager.page.get_by_role("option")).to_have_count(2)
    manager.command("Forget all").click()
    manager.question.get_by_text("Forget", exact=True).click()
    expect(manager.page.get_by_text("Nothing was run yet.")).to_be_visible()
    assert manager.library.history() == []


def test_what_was_run_is_in_the_history(
    manager: Manager, client: ComfyClient, renderer: str
) -> None:
    seed = 3 if renderer == "canvas" else 4  # the same again would not run
    prompt = {
        "1": {
            "class_type": "VivacePromptManager",
            "inputs": {"prompt": "animals/cat", "seed": seed},
        },
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    shown = client.run(prompt)["2"]["text"][0]
    manager.show()
    manager.element.get_by_text("History").click()
    manager.page.get_by_role("option").first.click()
    assert manager.texts == ("animals/cat", shown, "blurry")
    assert manager.values["seed"] == seed


def test_files_are_exported_and_imported(manager: Manager, renderer: str, tmp_path: Path) -> None:
    manager.show()
    manager.browse()
    manager.search.fill("animals")
    manager.expect_options("animals/cat", "animals/night/owl")
    with manager.page.expect_download() as download:
        manager.command("Export").click()
    file = tmp_path / "prompts.json"
    download.value.save_as(file)
    assert list(json.loads(file.read_text())["vivace_prompts"]) == [
        *("animals/cat", "animals/night/owl")
    ]
    manager.library.delete("animals/night/owl")
    manager.library.save("animals/cat", SHIP)
    manager.press("Escape")
    manager.browse()
    expect(manager.page.get_by_text("2 of 2 prompts")).to_be_visible()
    with manager.page.expect_file_chooser() as chooser:
        manager.command("Import").click()
    chooser.value.set_files(file)
    expect(manager.question).to_contain_text("1 prompt of the same name with another text")
    shoot(manager.page, f"prompts-{renderer}-import")
    manager.question.get_by_text("Keep both").click()
    manager.expect_toast("2 prompts saved.")
    prompts = manager.library.list().prompts
    assert prompts == {
        "animals/cat": SHIP,
        "animals/cat 2": CAT,
        "animals/night/owl": OWL,
        "ship": SHIP,
    }
    file.write_text("{")
    with manager.page.expect_file_chooser() as chooser:
        manager.command("Import").click()
    chooser.value.set_files(file)
    manager.expect_toast("prompts.json was not imported", "It is not JSON.")
    assert manager.library.list().prompts == prompts


def test_errors_of_the_server_are_toasts(manager: Manager, folder: Path) -> None:
    (folder / "bad.json").write_text("{")
    manager.show(positive="a fox")
    manager.browse()
    note = manager.page.locator(".vivace-picker-note").first
    expect(note).to_contain_text("bad.json: damaged: not a JSON object")
    manager.press("Escape")
    manager.element.get_by_text("Save").click()
    manager.page.keyboard.type("a/../b")
    manager.press("Enter")
    manager.expect_toast("a/../b was not saved", "a part that begins with a dot")
    expect(manager.page.get_by_label("Name, with folders")).to_have_value("a/../b")
    manager.page.get_by_label("Name, with folders").fill("bad")
    manager.press("Enter")
    manager.expect_toast("bad was not saved")
    assert (folder / "bad.json").read_text() == "{"


def test_a_saved_workflow_and_a_copied_node_keep_their_values(manager: Manager) -> None:
    manager.show(prompt="ship", positive="x", negative="y", variables="a = b", seed=5)
    values = manager.values
    graph = manager.page.evaluate("() => app.graph.serialize()")
    assert graph["nodes"][0]["widgets_values"][:5] == ["ship", "x", "y", "a = b", 5]
    load(manager.page, graph)
    assert manager.values == values
    expect(manager.name).to_have_attribute("aria-label", "Prompt: ship, edited")
    manager.page.evaluate(
        """() => { const [node] = app.graph.nodes; app.canvas.select?.(node);
            app.canvas.copyToClipboard([node]); app.canvas.pasteFromClipboard(); }"""
    )
    copied = "() => app.graph.nodes[1].widgets.slice(0, 5).map(w => w.value)"
    assert manager.page.evaluate(copied) == ["ship", "x", "y", "a = b", 5]


def test_the_line_works_inside_a_subgraph(manager: Manager) -> None:
    manager.show(prompt="ship")
    manager.page.evaluate(
        """() => {
            const [node] = app.rootGraph.nodes;
            app.rootGraph.convertToSubgraph(new Set([node]));
            app.canvas.setGraph(app.rootGraph.nodes[0].subgraph);
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [120, 80];
            app.canvas.graph.nodes[0].pos = [60, 40];
            app.canvas.setDirty(true, true);
        }"""
    )
    expect(manager.name).to_have_attribute("aria-label", "Prompt: ship, by name")
    manager.page.wait_for_timeout(400)
    manager.browse()
    manager.search.fill("owl")
    manager.press("Enter")
    sent = next(iter(prompt_of(manager.page).values()))["inputs"]
    manager.page.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    assert (sent["prompt"], sent["positive"]) == ("animals/night/owl", OWL.positive)


def test_two_tabs_see_what_the_other_does(manager: Manager, server: ComfyServer) -> None:
    manager.show(positive="a fox")
    with manager.page.expect_popup() as opened:
        manager.page.evaluate("url => { window.open(url); }", server.url)
    other = opened.value
    try:
        other.wait_for_function("() => window.app?.graph?.nodes.length > 0", timeout=90_000)
        second = Manager(other, manager.library)
        second.show(prompt="fox")
        expect(second.name).to_have_attribute("aria-label", "Prompt: fox, missing")
        manager.element.get_by_text("Save").click()
        manager.page.keyboard.type("fox")
        manager.press("Enter")
        expect(second.name).to_have_attribute("aria-label", "Prompt: fox, by name")
    finally:
        other.close()
