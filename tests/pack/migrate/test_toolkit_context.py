"""What comfyui-llm-toolkit hands around as `context` becomes inputs of our nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.both_formats import Part, as_prompt, as_workflow
from support.toolkit_nodes import (
    IMAGE,
    KEY,
    STREAM,
    TASK,
    TEXT,
    key_node,
    manager,
    migrate,
    provider,
    server,
    show,
    stays,
    writer,
)
from vivace.migrate import Known, migrate_workflow


def test_a_whole_chain_becomes_one_node() -> None:
    parts = {
        1: provider(key=KEY),
        2: key_node(context=(1, 0)),
        3: IMAGE,
        4: TEXT,
        5: manager((2, 0), (3, 0), (4, 0)),
        6: writer(STREAM, context=(5, 0)),
        7: show(6, 1),
        8: show(6, 0),
    }
    after, report = migrate(parts)
    assert sorted(after) == ["3", "4", "6", "7", "8"]
    inputs = after["6"]["inputs"]
    wanted = {
        "engine": "server",
        "engine.address": "https://api.openai.com/v1",
        "engine.server_model": "gpt-4.1",
        "engine.api_key_variable": "OPENAI_API_KEY",
        "images.image0": ["3", 0],
        "prompt": ["4", 0],
        "max_tokens": 1024,
        "sampling.temperature": 0.7,
        "sampling.top_p": 0.9,
        "sampling.top_k": 0,
    }
    assert wanted.items() <= inputs.items()
    assert "api_key" not in inputs
    assert after["7"]["inputs"] == after["8"]["inputs"] == {"source": ["6", 0]}
    assert [item.old for item in report.replaced] == [STREAM]
    assert {item.node: (item.old, item.into) for item in report.folded} == {
        "1": ("APIProviderSelectorNode", "6"),
        "2": ("APIKeyInput", "6"),
        "5": ("LLMPromptManager", "6"),
    }
    assert KEY not in json.dumps(after)
    notes = " ".join(report.replaced[0].notes)
    assert "the key in APIKeyInput (2) was left out: set OPENAI_API_KEY for ComfyUI" in notes
    assert "its own prompt played no part, and is gone: 'Mine.'" in notes
    assert "5: LLMPromptManager is part of 6 now" in report.lines()


def test_the_order_of_the_nodes_is_of_no_account() -> None:
    parts = {
        1: show(3, 1),
        2: manager((4, 0), (5, 0)),
        3: writer(context=(2, 0)),
        4: provider("deepseek", "deepseek-chat"),
        5: TEXT,
    }
    after, report = migrate(parts)
    assert sorted(after) == ["1", "3", "5"]
    assert after["3"]["inputs"]["engine.api_key_variable"] == "DEEPSEEK_API_KEY"
    assert len(report.folded) == 2


def test_what_others_need_stays() -> None:
    parts = {
        1: provider("gemini", "gemini-2.5-flash"),
        2: writer(context=(1, 0)),
        3: Part("GenerateImage", {}, {"context": (1, 0)}, ("*", "IMAGE")),
        4: show(2, 1),
    }
    after, report = migrate(parts)
    assert sorted(after) == ["1", "2", "3", "4"]
    assert after["3"]["inputs"] == {"context": ["1", 0]}
    assert after["2"]["inputs"]["engine.api_key_variable"] == "GEMINI_API_KEY"
    assert report.folded == []


def test_two_that_share_a_chain() -> None:
    parts = {1: server(), 2: writer(context=(1, 0)), 3: writer(STREAM, context=(1, 0))}
    after, report = migrate(parts)
    assert sorted(after) == ["2", "3"]
    assert [item.node for item in report.folded] == ["1"]


@pytest.mark.parametrize("name", ["ollama", "lmstudio"])
def test_a_server_of_ones_own(name: str) -> None:
    after, report = migrate({1: server(name, port=" 1234 "), 2: writer(context=(1, 0))})
    inputs = after["2"]["inputs"]
    assert inputs["engine.address"] == "http://localhost:1234/v1"
    assert inputs["engine.server_model"] == "gemma3:1b"
    assert inputs["engine.api_key_variable"] == ""
    assert inputs["sampling.top_k"] == (40 if name == "ollama" else 0)
    told = "that node could not ask 'lmstudio'" in " ".join(report.replaced[0].notes)
    assert told is (name == "lmstudio")


def test_a_model_on_this_machine() -> None:
    node = Part("LocalTransformersProviderNode", {"llm_model": "/models/LLM/Qwen3-4B"})
    known = Known(models=["Qwen/Qwen3-4B", "other"])
    after, _ = migrate({1: node, 2: writer(context=(1, 0))}, known)
    inputs = after["2"]["inputs"]
    assert (inputs["engine"], inputs["engine.model"]) == ("local", "Qwen/Qwen3-4B")
    assert (inputs["engine.dtype"], inputs["sampling.repetition_penalty"]) == ("float16", 1.1)


@pytest.mark.parametrize("model", ["gpt-5-nano", "o3-mini"])
def test_models_that_reason_take_no_temperature(model: str) -> None:
    after, _ = migrate({1: provider(model=model), 2: writer(context=(1, 0))})
    assert after["2"]["inputs"]["sampling"] == "model default"
    assert "sampling.temperature" not in after["2"]["inputs"]


@pytest.mark.parametrize(
    ("values", "model", "prompt"),
    [
        (["gpt-4.1", "Tell.", True, "answer"], "gpt-4.1", "Tell."),
        (["gpt-4.1", "Tell.", "answer"], "gpt-4.1", "Tell."),
        (["Tell.", False], "gpt-4o-mini", "Tell."),
    ],
)
def test_versions_of_the_node(values: list[Any], model: str, prompt: str) -> None:
    workflow = as_workflow({1: writer()})
    workflow["nodes"][0]["widgets_values"] = values
    after, report = migrate_workflow(workflow)
    assert len(report.replaced) == 1
    assert after["nodes"][0]["widgets_values"][2] == model
    assert after["nodes"][0]["widgets_values"][6] == prompt


def test_one_that_follows_another_asks_openai_as_it_always_did() -> None:
    parts = {1: server(), 2: writer(context=(1, 0)), 3: writer(STREAM, "And?", context=(2, 0))}
    after, report = migrate(parts)
    assert after["3"]["inputs"]["engine.server_model"] == "gpt-4o-mini"
    assert after["3"]["inputs"]["prompt"] == "And?"
    assert "'chat' of ours would go on" in " ".join(report.replaced[1].notes)


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_text_of_one_is_the_prompt_of_another(slot: int, swapped: bool) -> None:
    first, second = (4, 2) if swapped else (2, 4)
    parts = {
        first: writer(),
        3: manager((first, slot)),
        second: writer(STREAM, context=(3, 0)),
        5: show(second, 1),
    }
    after, report = migrate(dict(sorted(parts.items())))
    assert after[str(second)]["inputs"]["prompt"] == [str(first), 0]
    assert len(report.replaced) == 2
    assert [item.node for item in report.folded] == ["3"]


def test_a_system_prompt_that_only_the_pack_has_is_connected() -> None:
    parts = {1: TASK, 2: TEXT, 3: manager((1, 0), (2, 0)), 4: writer(context=(3, 0))}
    after, report = migrate(parts)
    assert after["4"]["inputs"]["system_prompt"] == ["1", 1]
    assert after["4"]["inputs"]["prompt"] == ["2", 0]
    assert sorted(after) == ["1", "2", "4"]
    notes = " ".join(report.replaced[0].notes)
    assert "the text of the task 'T' is still that of SystemPromptTaskGenerator (1)" in notes
    assert "no longer repeated before the prompt" in notes


@pytest.mark.parametrize(("managed", "prompt"), [(True, ["1", 1]), (False, "Mine.")])
def test_a_system_prompt_alone(managed: bool, prompt: Any) -> None:
    parts = {1: TASK, 2: manager((1, 0)), 4: writer(context=(2 if managed else 1, 0))}
    after, _ = migrate(parts)
    assert after["4"]["inputs"]["system_prompt"] == ["1", 1]
    assert after["4"]["inputs"]["prompt"] == prompt


def test_a_provider_behind_a_system_prompt_takes_it_away() -> None:
    parts = {1: TASK, 2: provider(context=(1, 0)), 3: writer(context=(2, 0))}
    after, _ = migrate(parts)
    assert isinstance(after["3"]["inputs"]["system_prompt"], str)


def test_the_prompt_manager_of_earlier_versions() -> None:
    values = {"text_prompt": " A text. ", "audio_path": "", "file_path": "", "url": ""}
    old = Part("PromptManager", values, {"image": (1, 0)})
    after, _ = migrate({1: IMAGE, 2: old, 3: writer(context=(2, 0))})
    assert after["3"]["inputs"]["prompt"] == "A text."
    assert after["3"]["inputs"]["images.image0"] == ["1", 0]
    sends = Part("PromptManager", values | {"url": "http://x"})
    stays({2: sends, 3: writer(context=(2, 0))}, "sends a video, a file or an address")


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({1: TEXT, 2: manager((1, 0), (1, 0)), 3: writer(context=(2, 0))}, "joins 2 texts"),
        ({1: Part("SomeNode"), 3: writer(context=(1, 0))}, "comes from SomeNode (1)"),
        ({1: provider("bfl", "flux"), 3: writer(context=(1, 0))}, "'bfl' is no provider of texts"),
        ({1: provider("ollama"), 3: writer(context=(1, 0))}, "does not say where 'ollama' runs"),
        ({1: server(model=""), 3: writer(context=(1, 0))}, "no model of 'ollama' is chosen"),
        (
            {
                1: TEXT,
                2: Part("LocalTransformersProviderNode", {"llm_model": ""}, {"llm_model": (1, 0)}),
                3: writer(context=(2, 0)),
            },
            "another node names its model",
        ),
        (
            {1: TEXT, 2: provider(provider=(1, 0)), 3: writer(context=(2, 0))},
            "'provider' of APIProviderSelectorNode (2) comes from another node",
        ),
        (
            {
                1: writer(),
                2: Part("GenerateImage", {}, {"context": (1, 0)}, ("*", "IMAGE")),
            },
            "its context goes to GenerateImage (2)",
        ),
        (
            {1: Part("Latent", outputs=("LATENT",)), 2: manager((1, 0)), 3: writer(context=(2, 0))},
            "its Prompt Manager is given ",
        ),
        (
            {1: key_node(), 2: Part("GenerateImage", {}, {"context": (1, 0)}, ("*", "IMAGE"))},
            "its keys go to GenerateImage (2)",
        ),
        ({1: IMAGE, 2: manager((1, 0)), 3: show(2, 0)}, "ours is for one text"),
        ({1: TEXT, 3: writer(context=(1, 0))}, "PrimitiveStringMultiline (1), which ours cannot"),
    ],
)
def test_cases_without_an_equivalent_stay(parts: dict[int, Part], why: str) -> None:
    stays(parts, why)


def test_a_circle() -> None:
    first, second = provider(context=(2, 0)), provider(context=(1, 0))
    stays({1: first, 2: second, 3: writer(context=(1, 0))}, "comes from itself")


def test_paths_that_part_and_meet_end_somewhere() -> None:
    parts: dict[int, Part] = {0: provider()}
    for number in range(1, 30):
        parts[number] = manager(*[(number - 1, 0)] * 9)
    parts[30] = writer(context=(29, 0))
    stays(parts, "through too many nodes")


@pytest.mark.parametrize(("mode", "model"), [(2, "gpt-4o-mini"), (4, "gpt-4.1")])
def test_a_node_that_is_switched_off_in_the_chain(mode: int, model: str) -> None:
    parts = {1: provider(), 2: provider(model="o1", context=(1, 0)), 3: writer(context=(2, 0))}
    workflow = as_workflow(parts)
    workflow["nodes"][1]["mode"] = mode
    after, report = migrate_workflow(workflow)
    found = {node["id"]: node for node in after["nodes"]}
    assert found[3]["widgets_values"][2] == model
    assert sorted(found) == [1, 2, 3]  # the switched off one is nobody's part
    assert any("(2) is switched off" in note for note in report.replaced[0].notes)


def test_the_name_of_a_model_may_come_from_another_node() -> None:
    parts = {1: TEXT, 2: provider(llm_model=(1, 0)), 3: writer(context=(2, 0)), 4: show(3, 1)}
    after, report = migrate(parts)
    assert after["3"]["inputs"]["engine.server_model"] == ["1", 0]
    assert sorted(after) == ["1", "3", "4"]
    assert "asks a model that another node names," in " ".join(report.replaced[0].notes)


def test_a_key_from_another_node_is_left_out() -> None:
    parts = {1: TEXT, 2: provider(external_api_key=(1, 0)), 3: writer(context=(2, 0))}
    after, report = migrate(parts)
    assert sorted(after) == ["1", "3"]
    assert any("(2) was left out: set OPENAI_API_KEY" in note for note in report.replaced[0].notes)


def test_keys_are_never_shown() -> None:
    workflow = as_workflow({1: key_node()})
    for values in ([KEY], ["openai", KEY, "?", 1], [KEY, KEY, False]):
        workflow["nodes"][0]["widgets_values"] = values
        after, report = migrate_workflow(workflow)
        assert after == workflow
        assert len(report.left) == 1
        assert KEY not in report.lines()[0]


def test_installed_nodes_of_the_chain_stay() -> None:
    prompt = as_prompt({1: provider(), 2: writer(context=(1, 0))})
    after, report = migrate_workflow(prompt, Known(installed={"APIProviderSelectorNode"}))
    assert sorted(after) == ["1", "2"]
    assert report.folded == []


def subgraph() -> dict[str, Any]:
    inner = as_workflow({1: provider(), 2: manager((1, 0)), 3: writer(context=(2, 0))})
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links: list[dict[str, Any]] = [dict(zip(keys, link, strict=True)) for link in inner["links"]]
    outside = {"id": 9, "origin_id": -10, "origin_slot": 0, "target_id": 2, "target_slot": 1}
    links.append({**outside, "type": "IMAGE"})
    inner["nodes"][1]["inputs"].append({"name": "context_1", "type": "IMAGE", "link": 9})
    definition = {
        "id": "some-uuid",
        "name": "Inner",
        "nodes": inner["nodes"],
        "links": links,
        "state": {"lastLinkId": 20},
        "inputs": [{"name": "image", "type": "IMAGE", "linkIds": [9]}],
        "outputs": [],
    }
    shown = [["1", "llm_model"], ["3", "prompt"], ["3", "hide_thinking"]]
    host = {"id": 1, "type": "some-uuid", "properties": {"proxyWidgets": shown}}
    return {"nodes": [host], "links": [], "definitions": {"subgraphs": [definition]}}


def test_a_chain_in_a_subgraph() -> None:
    after, report = migrate_workflow(subgraph())
    found = after["definitions"]["subgraphs"][0]
    assert [node["id"] for node in found["nodes"]] == [3]
    assert found["inputs"][0]["linkIds"] == [21]
    assert found["state"]["lastLinkId"] == 21
    (link,) = found["links"]
    assert list(link.values()) == [21, -10, 0, 3, 0, "IMAGE"]
    assert found["nodes"][0]["inputs"][0]["link"] == 21
    assert after["nodes"][0]["properties"]["proxyWidgets"] == [["3", "prompt"]]
    assert [item.node for item in report.folded] == ["Inner/2", "Inner/1"]


def test_a_context_from_outside_a_subgraph() -> None:
    workflow = subgraph()
    definition = workflow["definitions"]["subgraphs"][0]
    definition["links"][1] |= {"origin_id": -10}
    after, report = migrate_workflow(workflow)
    assert after == workflow
    assert "comes from outside" in report.left[0].reason


def test_prompts_need_types_that_somebody_knows() -> None:
    parts = {1: Part("MyText", outputs=("STRING",)), 2: manager((1, 0)), 3: writer(context=(2, 0))}
    prompt = as_prompt(parts)
    after, report = migrate_workflow(prompt)
    assert after == prompt
    assert "something of an unknown type at 'context'" in report.left[0].reason
    known = Known(output_types=lambda name: ("STRING",) if name == "MyText" else ())
    after, _ = migrate_workflow(prompt, known)
    assert after["3"]["inputs"]["prompt"] == ["1", 0]
