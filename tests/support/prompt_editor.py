"""A Prompt Manager in the real editor, and the library of prompts behind it."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect
from vivace.toolkit.prompt_library import PromptLibrary, SavedPrompt

from .steady import wait_in_its_node

CAT = SavedPrompt("a {red|grey} cat", "blurry", ("animal", "pet"), "the neighbour's")
OWL = SavedPrompt("an owl at night", "", ("animal",))
SHIP = SavedPrompt("a sailing ship in a gale", "calm sea")
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
        wait_in_its_node(self.element)
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
