"""Node ids, inputs and outputs are public: saved workflows and API clients depend on them.

The snapshot may only grow: new nodes, new optional inputs and new outputs at the end. After such
a change run the tests once with `VIVACE_UPDATE_SNAPSHOT=1` and commit `data/public_api.json`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from vivace.devkit.rig.client import ComfyClient

SNAPSHOT = Path(__file__).parents[1] / "data" / "public_api.json"


@pytest.fixture(scope="module")
def current(client: ComfyClient) -> dict[str, Any]:
    info = client.get_json("/object_info")
    ours = {
        name: public_part(node)
        for name, node in sorted(info.items())
        if node["python_module"] == "custom_nodes.ComfyUI-Vivace"
    }
    if os.environ.get("VIVACE_UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(ours, indent=2) + "\n")
    return ours


def public_part(node: dict[str, Any]) -> dict[str, Any]:
    def inputs(kind: str) -> list[list[Any]]:
        definitions = node["input"].get(kind, {})
        return [[name, describe(*definitions[name])] for name in definitions]

    return {
        "display_name": node["display_name"],
        "required": inputs("required"),
        "optional": inputs("optional"),
        "outputs": [list(pair) for pair in zip(node["output_name"], node["output"], strict=True)],
        "output_is_list": node["output_is_list"],
        "output_node": node["output_node"],
    }


def describe(io_type: str, options: dict[str, Any]) -> dict[str, Any]:
    """Type and limits; the choices of a combo of files depend on the machine."""
    keep = ("default", "min", "max", "step", "multiline")
    return {"type": io_type, **{key: options[key] for key in keep if key in options}}


def test_the_snapshot_is_current(current: dict[str, Any]) -> None:
    assert current == json.loads(SNAPSHOT.read_text()), "see the docstring of this file"
