"""Migrated prompts before the real server, and what it replaces by itself."""

from __future__ import annotations

import copy
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import torch
from safetensors.torch import load
from support.graphs import KOHYA, PEFT, node
from vivace.devkit.demo.workflow import Run, build
from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.rig.client import ComfyClient, PromptRejectedError

GOLDEN = [
    json.loads(file.read_text())
    for file in sorted((Path(__file__).parents[2] / "data" / "golden").glob("*.json"))
]


@pytest.fixture(autouse=True)
def _empty_queue(client: ComfyClient) -> Iterator[None]:
    """What was accepted need not run."""
    yield
    client.post("/queue", {"clear": True})
    client.post("/interrupt", {})


def without_clip(prompt: dict[str, Any]) -> dict[str, Any]:
    """There is no text encoder among the tests' models."""
    kept = copy.deepcopy(prompt)
    for name in ("4", "5"):
        if name in kept and kept[name]["class_type"].startswith("CLIP"):
            del kept[name]
    for item in kept.values():
        item["inputs"].pop("clip", None)
    return kept


def ask(client: ComfyClient, body: bytes) -> Any:
    request = urllib.request.Request(f"{client.url}/vivace/migrate", body)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return json.loads(response.read())


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["old"])
def test_a_migrated_prompt_is_accepted(client: ComfyClient, golden: dict[str, Any]) -> None:
    assert client.queue(without_clip(golden["prompt"]["after"]))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["old"])
def test_a_prompt_with_missing_nodes_is_accepted(
    client: ComfyClient, golden: dict[str, Any]
) -> None:
    assert client.queue(without_clip(golden["prompt"]["before"]))


def test_a_missing_node_gives_the_same_latent_as_ours(client: ComfyClient) -> None:
    rows = [{"on": True, "lora": PEFT, "strength": 0.5}]
    base, ours = (build(Run("ours", given), MODEL_FILE, None, 3584, []) for given in ([], rows))
    theirs = copy.deepcopy(ours)
    del theirs["report"]  # theirs has no such output
    theirs["stack"] = node(
        "NunchakuQwenImageLoraStackV3",
        model=["model", 0],
        lora_count=2,
        cpu_offload="disable",
        toggle_all=True,
        enabled_1=True,
        lora_name_1=PEFT,
        lora_strength_1=0.5,
        enabled_2=False,
        lora_name_2=KOHYA,
        lora_strength_2=1.0,
    )
    plain, first, second = (
        load(client.fetch(client.run(prompt)["latent_file"]["latents"][0]))["latent_tensor"]
        for prompt in (base, ours, theirs)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, plain)


def test_other_unknown_nodes_are_still_refused(client: ComfyClient) -> None:
    with pytest.raises(PromptRejectedError, match="NoSuchNode"):
        client.queue({"1": node("NoSuchNode"), "2": node("PreviewAny", source=["1", 0])})


def test_the_editor_is_given_a_migrated_workflow(client: ComfyClient) -> None:
    golden = next(item for item in GOLDEN if item["old"] == "Lora Loader (LoraManager)")
    found = ask(client, json.dumps(golden["ui"]["before"]).encode())
    stack = next(n for n in found["workflow"]["nodes"] if n["id"] == 2)
    assert stack["widgets_values"] == [
        [
            {"on": True, "lora": PEFT, "strength": 0.8},
            {"on": False, "lora": KOHYA, "strength": -0.5},
        ],
        "auto",
        False,
    ]
    assert found["report"]["lines"][0] == "2: Lora Loader (LoraManager) -> VivaceLoraStack"


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"", b"[" * 9999, b"9" * 9999])
def test_what_is_no_workflow_is_refused(client: ComfyClient, body: bytes) -> None:
    with pytest.raises(HTTPError, match="400"):
        ask(client, body)


def test_comfyui_offers_the_replacements_that_it_can_do(client: ComfyClient) -> None:
    client.get("/node_replacements")
    found = client.get_json("/node_replacements")
    (loader,) = found["NunchakuQwenImageLoraLoader"]
    assert loader["new_node_id"] == "VivaceLoraLoader"
    assert loader["old_widget_ids"][:2] == ["lora_name", "lora_strength"]
    assert {"new_id": "lora", "old_id": "lora_name"} in loader["input_mapping"]
    (check,) = found["CheckImageEmpty"]
    assert {"new_idx": 2, "old_idx": 1} in check["output_mapping"]
    assert {"new_id": "black_below", "set_value": -1.0} in check["input_mapping"]


def test_an_optional_input_that_is_missing_is_no_server_error(client: ComfyClient) -> None:
    """ComfyUI's own replacement answers 500 to this prompt, which has no image and no title."""
    client.get("/node_replacements")
    prompt = {"1": node("CheckImageEmpty"), "2": node("PreviewAny", source=["1", 1])}
    assert "no image" in client.run(prompt)["2"]["text"][0].lower()
    model = {"1": node("UNETLoader", unet_name=MODEL_FILE, weight_dtype="default")}
    assert client.queue(model | {"2": node("PreviewAny", source=["1", 0])})
