"""Whatever stands in a node, migrating never fails: it stays, and the report says why."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.both_formats import Part, as_prompt, as_workflow
from support.toolkit_nodes import TEXT, key_node, manager, provider, server, writer
from vivace.migrate import Known, migrate_workflow

GOLDEN = [
    json.loads(file.read_text())
    for file in sorted((Path(__file__).parents[2] / "data" / "golden").glob("*.json"))
]
KNOWN = Known(["a/vivace-demo-peft.safetensors", "b.pt"], ["Qwen-VL/small-qwen3_vl"], True)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "disable", "none", "4bit", "randomize", "None (FP16)", 10**400])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["on", "lora", "strength", "name", "link", "__value__", "0"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
ANY_GOLDEN = st.sampled_from(GOLDEN)


def migrate(workflow: dict[str, Any], old: str) -> None:
    """Migrate; the one old node is either replaced or reported, and is then as it was."""
    before = copy.deepcopy(workflow)
    after, report = migrate_workflow(workflow, KNOWN)
    assert len(report.replaced) + len(report.left) == 1, old
    assert report.lines()
    json.dumps(report.to_json())
    if report.left:
        assert json.dumps(after, sort_keys=True) == json.dumps(before, sort_keys=True)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["old"])
@settings(max_examples=30)
@given(data=st.data())
def test_any_value_in_any_place(golden: dict[str, Any], data: st.DataObject) -> None:
    workflow = copy.deepcopy(golden["ui"]["before"])
    node = next(n for n in workflow["nodes"] if n["type"] == golden["old"])
    values = node["widgets_values"]
    for _ in range(data.draw(st.integers(1, 3))):
        if values:
            values[data.draw(st.integers(0, len(values) - 1))] = data.draw(VALUES)
    migrate(workflow, golden["old"])
    prompt = copy.deepcopy(golden["prompt"]["before"])
    inputs = prompt["2"]["inputs"]
    if inputs:
        inputs[data.draw(st.sampled_from(sorted(inputs)))] = data.draw(VALUES)
    inputs.pop(data.draw(st.sampled_from([*sorted(inputs), ""])), None)
    migrate(prompt, golden["old"])


@given(
    golden=ANY_GOLDEN,
    values=VALUES,
    key=st.sampled_from(["widgets_values", "inputs", "outputs", "properties", "size", "id"]),
)
def test_a_malformed_node(golden: dict[str, Any], values: Any, key: str) -> None:
    workflow = copy.deepcopy(golden["ui"]["before"])
    node = next(n for n in workflow["nodes"] if n["type"] == golden["old"])
    node[key] = values
    migrate(workflow, golden["old"])


@given(golden=ANY_GOLDEN, values=VALUES, key=st.sampled_from(["links", "definitions", "extra"]))
def test_a_malformed_workflow(golden: dict[str, Any], values: Any, key: str) -> None:
    workflow = copy.deepcopy(golden["ui"]["before"])
    workflow[key] = values
    migrate(workflow, golden["old"])
    if isinstance(values, list):
        workflow["links"] = golden["ui"]["before"]["links"] + values
        migrate(workflow, golden["old"])


CHAIN = {
    1: provider(),
    2: server(),
    3: Part("ConfigGenerateMusic", {"prompt": "", "custom_mode": True}, {"context": (2, 0)}),
    4: key_node(context=(1, 0)),
    5: TEXT,
    6: manager((4, 0), (5, 0), (3, 0)),
    7: writer(context=(6, 0)),
    8: Part("GenerateMusic", {"prompt": "A"}, {"context": (3, 0)}, ("*", "STRING")),
    9: Part("PreviewOutputs", {}, {"context": (8, 0)}, ("*", "AUDIO", "IMAGE", "STRING")),
}


@settings(max_examples=200)
@given(data=st.data())
def test_any_value_and_link_in_a_chain_of_nodes(data: st.DataObject) -> None:
    prompt, workflow = as_prompt(CHAIN), as_workflow(CHAIN)
    for _ in range(data.draw(st.integers(1, 4))):
        id_ = data.draw(st.sampled_from(sorted(CHAIN)))
        place = [str(data.draw(st.integers(0, 10))), data.draw(st.integers(-1, 4))]
        value = data.draw(VALUES | st.just(place) | st.sampled_from(["ollama", "suno", "hf"]))
        inputs = prompt[str(id_)]["inputs"]
        if inputs:
            inputs[data.draw(st.sampled_from(sorted(inputs)))] = value
        node = workflow["nodes"][id_ - 1]
        if node["widgets_values"]:
            index = data.draw(st.integers(0, len(node["widgets_values"]) - 1))
            node["widgets_values"][index] = value
        link = data.draw(st.sampled_from(workflow["links"]))
        link[data.draw(st.integers(1, 4))] = data.draw(st.integers(-20, 10) | st.text(max_size=2))
        node["mode"] = data.draw(st.sampled_from([0, 2, 4]) | VALUES)
    for before in (prompt, workflow):
        text = json.dumps(before)
        after, report = migrate_workflow(before, KNOWN)
        assert json.dumps(before) == text
        json.dumps(report.to_json())
        if not report.replaced:
            assert json.dumps(after) == text


@given(workflow=st.dictionaries(st.sampled_from(["nodes", "links", "1", "prompt"]), VALUES))
def test_something_else_altogether(workflow: dict[str, Any]) -> None:
    after, report = migrate_workflow(workflow)
    assert json.dumps(after) == json.dumps(workflow)
    assert report.replaced == []
