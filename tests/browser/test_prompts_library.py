"""The library of prompts in the real editor: files, history, and what others change in it."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import expect
from support.editor import shoot
from support.prompt_editor import CAT, OWL, SHIP, Manager
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer
from vivace.toolkit.prompt_library import Run


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
    assert list(manager.library.list().values) == ["animals/cat", "animals/night/owl"]


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
    prompts = manager.library.list().values
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
    assert manager.library.list().values == prompts


def test_errors_of_the_server_are_toasts(manager: Manager, prompts_folder: Path) -> None:
    (prompts_folder / "bad.json").write_text("{")
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
    assert (prompts_folder / "bad.json").read_text() == "{"


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
