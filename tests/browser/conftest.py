"""What the tests in the editor share: a browser, and a page for each file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support.console import Console
from support.editor import find_browser, open_editor
from support.lora_editor import NAMES, Library, Stack
from support.prompt_editor import CAT, OWL, SHIP, Manager
from vivace.devkit.rig.browser import FLAGS
from vivace.devkit.rig.server import ComfyServer
from vivace.toolkit.prompt_library import PromptLibrary

VUE_NODES = "vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong
    program = find_browser()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The editor, opened once."""
    opened = open_editor(browser, server)
    yield opened
    opened.close()


@pytest.fixture
def console(page: Page) -> Iterator[Console]:
    """What the editor's console says during a test; errors and warnings of ours fail it."""
    watched = Console(page)
    yield watched
    watched.close()
    assert watched.ours == []


@pytest.fixture
def editor(page: Page, console: Console) -> Iterator[Page]:
    """The editor with an empty graph."""
    page.evaluate("() => app.graph.clear()")
    yield page
    page.keyboard.press("Escape")


@pytest.fixture(scope="module")
def library(page: Page) -> Library:
    """LoRA files for the editor."""
    return Library(page)


@pytest.fixture(scope="module", params=["canvas", "vue"])
def renderer(page: Page, request: pytest.FixtureRequest) -> Iterator[str]:
    """Which of the editor's two renderers draws the nodes."""
    page.evaluate(VUE_NODES, request.param == "vue")
    page.wait_for_timeout(500)
    yield request.param
    page.evaluate(VUE_NODES, False)  # the server keeps it, for other tests too


@pytest.fixture
def stack(editor: Page, library: Library, renderer: str) -> Stack:
    """What a test does with a LoRA Stack, in either renderer."""
    library.stacks = {}
    opened = Stack(editor, library)
    if library.names != NAMES:  # another test's
        library.names = list(NAMES)
        opened.refresh()
    return opened


@pytest.fixture
def manager(editor: Page, prompts_folder: Path, renderer: str) -> Manager:
    """What a test does with a Prompt Manager, in either renderer, with three prompts saved."""
    library = PromptLibrary(prompts_folder)
    for name, prompt in {"animals/cat": CAT, "animals/night/owl": OWL, "ship": SHIP}.items():
        library.save(name, prompt)
    return Manager(editor, library)
