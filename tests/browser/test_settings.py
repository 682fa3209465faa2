"""The pack's settings in the editor's dialog, and what they do to new nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from support.editor import editor_in, load, shoot
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
NEW = {
    "Vivace.LoRA.Mode": "branch",
    "Vivace.QwenVL.ImageQuality": "fast",
    "Vivace.General.OpenReports": True,
}
USUAL = {
    "Vivace.LoRA.Mode": "auto",
    "Vivace.QwenVL.ImageQuality": "balanced",
    "Vivace.General.OpenReports": False,
    "Vivace.General.LogDetail": "normal",
    "Vivace.Workflow.ReplaceMissing": True,
}
CHOOSE = """async values => {
    const { setting } = app.extensionManager;
    for (const [id, value] of Object.entries(values)) await setting.set(id, value);
}"""
CREATE = """names => {
    for (const name of names) app.graph.add(LiteGraph.createNode(name));
}"""
VALUES = """([type, name]) => app.graph.nodes.filter(n => n.comfyClass === type)
    .map(n => n.widgets.find(w => w.name === name).value)"""


@pytest.fixture
def usual(editor: Page) -> Iterator[Page]:
    """The editor, whose settings are put back."""
    yield editor
    editor.evaluate(CHOOSE, USUAL)


def values(page: Page, node_type: str, name: str) -> list[Any]:
    return page.evaluate(VALUES, [node_type, name])


def open_settings(page: Page, title: str = "Vivace") -> Locator:
    page.evaluate("() => app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(title, exact=True).first.click()
    return dialog


def test_new_nodes_begin_with_the_settings(usual: Page) -> None:
    nodes = ["VivaceLoraStack", "VivaceLoraLoader", "VivaceQwenVL", "VivaceQwenVLBatch"]
    usual.evaluate(CREATE, nodes)
    saved = usual.evaluate("() => app.graph.serialize()")
    usual.evaluate(CHOOSE, NEW)
    usual.evaluate(CREATE, nodes)
    assert [values(usual, name, "mode") for name in nodes[:2]] == [["auto", "branch"]] * 2
    chosen = [values(usual, name, "image_quality") for name in nodes[2:]]
    assert chosen == [["balanced", "fast"]] * 2
    opened = usual.locator(".vivace-fold [aria-expanded=true], .vivace-timings[open]")
    expect(opened).to_have_count(4)
    load(usual, saved)  # saved ones keep theirs
    assert [values(usual, name, "mode") for name in nodes[:2]] == [["auto"]] * 2
    assert [values(usual, name, "image_quality") for name in nodes[2:]] == [["balanced"]] * 2


@pytest.mark.parametrize("name", ["Power_Lora_Loader_rgthree", "BlankImage", "QwenVL"])
def test_other_packs_nodes_stay_where_that_is_switched_off(usual: Page, name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())["ui"]
    asked: list[str] = []
    note = lambda request: asked.append(request.url)  # noqa: E731
    usual.on("request", note)
    for switched_on in (False, True):
        usual.evaluate(CHOOSE, {"Vivace.Workflow.ReplaceMissing": switched_on})
        load(usual, golden["before"])
        saved = usual.evaluate("() => app.graph.serialize()")
        wanted = golden["after" if switched_on else "before"]
        assert {id_: node["type"] for id_, node in by_id(saved).items()} == {
            id_: node["type"] for id_, node in by_id(wanted).items()
        }
        found, expected = (by_id(graph)[2] for graph in (saved, wanted))
        count = len(expected["widgets_values"])
        assert found["widgets_values"][:count] == expected["widgets_values"]
        assert sorted(link[1:5] for link in saved["links"]) == sorted(
            link[1:5] for link in wanted["links"]
        )
        assert any("/vivace/migrate" in url for url in asked) is switched_on
    usual.remove_listener("request", note)


def by_id(workflow: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {node["id"]: node for node in workflow["nodes"]}


def test_the_dialog_sets_them(usual: Page, client: ComfyClient) -> None:
    dialog = open_settings(usual)
    for name in (
        "Detail of the server's log",
        "Open reports in new nodes",
        "Mode in new LoRA nodes",
        "RAM for LoRA files, in MB",
        "Image quality in new QwenVL nodes",
        "Image embeddings in memory, in MB",
        "Image embeddings on disk, in MB",
        "Stand in for nodes of packs that are not installed",
    ):
        expect(dialog.get_by_text(name, exact=True)).to_have_count(1)
    dialog.get_by_role("combobox").filter(has_text="Normal").click()
    usual.wait_for_timeout(300)
    shoot(usual, "settings")
    usual.get_by_role("option", name="Quiet").click()
    for _ in range(50):
        if client.get_json("/settings").get("Vivace.General.LogDetail") == "quiet":
            break
        usual.wait_for_timeout(100)
    assert client.get_json("/settings")["Vivace.General.LogDetail"] == "quiet"


def test_the_dialog_is_translated(browser: Browser, server: ComfyServer) -> None:
    with editor_in("fr", browser, server) as french:
        dialog = open_settings(french)
        expect(dialog.get_by_text("Détail du journal du serveur")).to_have_count(1)
        expect(dialog.get_by_text("Qualité d'image des nouveaux nœuds QwenVL")).to_have_count(1)
        french.wait_for_timeout(300)
        shoot(french, "settings-french")
