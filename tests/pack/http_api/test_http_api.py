"""Plain lists in prompts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from vivace.http_api import wrap_lists

OURS = {"VivaceLoraStack"}


def request(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"prompt": {"1": {"class_type": class_type, "inputs": inputs}}, "client_id": "x"}


@pytest.mark.parametrize("rows", [[], [{"lora": "a"}], [{"lora": "a"}, {"lora": "b"}]])
def test_lists_of_our_nodes_are_wrapped(rows: list[Any]) -> None:
    wrapped = wrap_lists(request("VivaceLoraStack", rows=rows, model=["4", 0]), OURS)
    inputs = wrapped["prompt"]["1"]["inputs"]
    assert inputs == {"rows": {"__value__": rows}, "model": ["4", 0]}


@pytest.mark.parametrize(
    "body",
    [
        request("KSampler", rows=[1, 2, 3]),
        request("VivaceLoraStack", rows={"__value__": []}, model=["4", 0]),
        {"prompt": {"1": {"class_type": "VivaceLoraStack", "inputs": 5}, "2": [], "3": None}},
        {"prompt": [1, 2]},
        {},
        [],
        None,
    ],
)
def test_everything_else_is_left_alone(body: Any) -> None:
    before = copy.deepcopy(body)
    assert wrap_lists(body, OURS) == before
