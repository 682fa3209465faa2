"""Keys that were pasted where names belong are taken out of the whole request."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from vivace.http_api import guard_keys
from vivace.vlm.remote.key_shape import REMOVED

OURS = {"VivaceApiKey", "VivaceQwenVL"}
KEY = "sk-canary-7f3a/+9Q=="


def request(class_type: str, **inputs: Any) -> dict[str, Any]:
    workflow = {"nodes": [{"id": 1, "widgets_values": ["keyring", f" {KEY}"]}], "note": f"<{KEY}>"}
    return {
        "prompt": {"1": {"class_type": class_type, "inputs": inputs}},
        "extra_data": {"extra_pnginfo": {"workflow": workflow}},
    }


@pytest.mark.parametrize(
    ("class_type", "inputs"),
    [
        ("VivaceApiKey", {"source": "keyring", "key_name": f"{KEY}\n"}),
        ("VivaceApiKey", {"source": KEY, "key_name": ""}),
        ("VivaceQwenVL", {"engine": "server", "engine.api_key_variable": KEY}),
        ("VivaceQwenVL", {"api_key_variable": f" {KEY}"}),
    ],
)
def test_a_pasted_key_is_nowhere_afterwards(class_type: str, inputs: dict[str, Any]) -> None:
    guarded = guard_keys(request(class_type, **inputs), OURS)
    assert KEY not in str(guarded)
    assert str(guarded).count(REMOVED) == 3
    assert guarded["prompt"]["1"]["inputs"].keys() == inputs.keys()


@pytest.mark.parametrize(
    "body",
    [
        request("VivaceApiKey", source="keyring", key_name="openai"),
        request("VivaceApiKey", source="keyring", key_name=["2", 0]),
        request("VivaceQwenVL", prompt=KEY),  # a prompt may say anything
        request("Other", key_name=KEY),
        {"prompt": {"1": {"class_type": ["x"], "inputs": {"key_name": KEY}}}},
        {"prompt": {"1": {"class_type": "VivaceApiKey", "inputs": 5}, "2": None}},
        [],
        None,
    ],
)
def test_everything_else_is_left_alone(body: Any) -> None:
    before = copy.deepcopy(body)
    assert guard_keys(body, OURS) == before
