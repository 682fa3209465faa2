"""Workflows of other packs in the real editor: our nodes stand in for theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page
from support.editor import load, prompt_of, says_missing, shoot

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
MIGRATED = (
    "NunchakuQwenImageLoraStackV3",
    "NunchakuZImageTurboLoraStackV4",
    "Power_Lora_Loader_rgthree",
    "AILab_QwenVL_Advanced",
    "QwenVL",
    "Qwen2.5VL",
    "BlankImage",
    "CheckImageEmpty",
    "LLMToolkitTextGenerator",
    "LLMToolkitTextGeneratorStream",
    "LLMPromptManager",
    "APIKeyInput",
    "PreviewOutputs",
)


@pytest.mark.parametrize("name", MIGRATED)
def test_a_workflow_of_another_pack_opens_with_our_nodes(editor: Page, name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    load(editor, golden["ui"]["before"], len(golden["ui"]["after"]["nodes"]))
    assert not says_missing(editor)
    for item in golden["ui"]["report"]["folded"]:
        said = f"{item['node']}: {item['old']} is part of {item['into']} now"
        assert said in editor.inner_text("body")
    prompt = prompt_of(editor)
    expected = golden["prompt"]["after"]["2"]
    assert prompt["2"]["class_type"] == expected["class_type"]
    assert prompt["2"]["_meta"]["title"] == "Mine"
    found = prompt["2"]["inputs"]
    if isinstance(found.get("rows"), dict):
        found["rows"] = found["rows"]["__value__"]
    assert found == expected["inputs"]
    assert {id_: node["class_type"] for id_, node in prompt.items()} == {
        id_: node["class_type"] for id_, node in golden["prompt"]["after"].items()
    }
    saved = editor.evaluate("() => app.graph.serialize()")
    ours = next(node for node in saved["nodes"] if node["id"] == 2)
    wanted = next(node for node in golden["ui"]["after"]["nodes"] if node["id"] == 2)
    assert [item["name"] for item in ours["inputs"]] == [item["name"] for item in wanted["inputs"]]
    count = len(wanted["widgets_values"])
    assert ours["widgets_values"][:count] == wanted["widgets_values"]
    assert saved["last_link_id"] >= max(link[0] for link in saved["links"])


@pytest.mark.parametrize("name", ["GenerateMusic", "GenerateLyrics"])
def test_music_of_another_pack_opens_with_our_nodes(editor: Page, name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    load(editor, golden["ui"]["before"], len(golden["ui"]["after"]["nodes"]))
    assert not says_missing(editor)
    found, expected = prompt_of(editor)["2"], golden["prompt"]["after"]["2"]
    assert found["class_type"] == expected["class_type"]
    model = next(key for key in found["inputs"] if key in ("model", "engine.model"))
    assert found["inputs"].pop(model)  # the first that this machine has
    expected["inputs"].pop(model, None)
    assert found["inputs"] == expected["inputs"]
    shoot(editor, f"migrated-{name}")
