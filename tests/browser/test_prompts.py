"""Prompt Manager in the real editor: a prompt is chosen, saved, and kept by the node."""

from __future__ import annotations

from playwright.sync_api import expect
from support.editor import load, prompt_of, shoot
from support.prompt_editor import OWL, SHIP, Manager
from vivace.toolkit.prompt_library import SavedPrompt


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
    fox = SavedPrompt("a fox", "fog", ("animal", "red"))
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
    assert manager.library.load("ship") == SavedPrompt("a raft")


def test_what_another_has_saved_meanwhile_is_shown_and_kept(manager: Manager) -> None:
    manager.show(positive="a raft")
    manager.element.get_by_text("Save").click()
    manager.page.keyboard.type("boat")
    manager.library.save("boat", SavedPrompt("their boat"))
    manager.press("Enter")
    expect(manager.question).to_contain_text("boat was changed elsewhere just now")
    expect(manager.question).to_contain_text("their boat")
    manager.library.save("boat", SavedPrompt("their newer boat"))
    manager.question.get_by_text("Replace", exact=True).click()
    expect(manager.question).to_contain_text("their newer boat")
    assert manager.library.load("boat") == SavedPrompt("their newer boat")
    manager.press("Escape")
    manager.library.delete("boat")
    manager.press("Enter")  # of the form, which has seen the newer one
    manager.question.get_by_text("Replace", exact=True).click()
    expect(manager.page.get_by_role("dialog")).to_have_count(0)
    assert manager.library.load("boat") == SavedPrompt("a raft")


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
