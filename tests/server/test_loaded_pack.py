"""A real ComfyUI loads the pack in no time, and lists its nodes."""

from __future__ import annotations

from typing import Any

from support.graphs import KOHYA, PEFT
from vivace.devkit.rig.client import ComfyClient


def test_import_time_is_nothing_in_comfyui_s_own_log(server: Any) -> None:
    lines = [
        line for line in server.log.read_text().splitlines() if line.endswith("ComfyUI-Vivace")
    ]
    assert any("0.0 seconds" in line for line in lines), server.tail(80)


def test_nodes_are_listed_with_their_schema(client: ComfyClient) -> None:
    info = client.get_json("/object_info")
    stack = info["VivaceLoraStack"]
    assert stack["display_name"] == "LoRA Stack"
    assert stack["category"] == "Vivace/LoRA"
    assert stack["input"]["required"]["rows"][0] == "VIVACE_LORA_ROWS"
    assert stack["output"] == ["MODEL", "STRING", "LORA_STACK", "STRING", "STRING", "CLIP"]
    assert stack["python_module"] == "custom_nodes.ComfyUI-Vivace"
    names = info["VivaceLoraLoader"]["input"]["required"]["lora"]
    assert {PEFT, KOHYA} <= set(names[1]["options"])
