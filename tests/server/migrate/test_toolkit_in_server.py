"""Prompts with missing nodes of comfyui-llm-toolkit, before and in the real server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from support.both_formats import Part, as_prompt, as_workflow
from support.openai_server import OpenAIServer, stream
from support.toolkit_nodes import KEY, STREAM, key_node, manager, provider, server, show, writer
from vivace.devkit.rig.client import ComfyClient

TEXT = Part("PrimitiveStringMultiline", {"value": "Which colour?"}, outputs=("STRING",))
SIZE = {"width": 64, "height": 64, "batch_size": 1, "color": 255}
IMAGE = Part("EmptyImage", SIZE, outputs=("IMAGE",))
RESIZED = {"upscale_method": "area", "width": 32, "height": 32, "crop": "disabled"}


@pytest.fixture
def answering() -> Iterator[OpenAIServer]:
    with OpenAIServer(stream("Blue.")) as found:
        yield found


def test_a_whole_chain_runs_without_its_pack(client: ComfyClient, answering: OpenAIServer) -> None:
    port = answering.url.rpartition(":")[2].partition("/")[0]
    parts = {
        1: server("lmstudio", "tiny", port),
        2: IMAGE,
        3: Part("ImageScale", RESIZED, {"image": (2, 0)}, ("IMAGE",)),
        4: TEXT,
        5: manager((1, 0), (3, 0), (4, 0)),
        6: writer(STREAM, context=(5, 0)),
        7: show(6, 0),
    }
    found = client.run(as_prompt(parts))
    assert found["7"]["text"] == ["Blue."]
    (request,) = [item.json for item in answering.requests if item.method == "POST"]
    assert request["model"] == "tiny"
    assert request["messages"][0]["role"] == "system"
    image, question = request["messages"][1]["content"]
    assert image["type"] == "image_url"
    assert question == {"type": "text", "text": "Which colour?"}
    wanted = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 1024}
    assert wanted.items() <= request.items()
    assert "top_k" not in request


def test_types_of_outputs_are_those_of_the_server(client: ComfyClient) -> None:
    """Nobody wrote down what CLIPTextEncode or ImageBlur give out."""
    blur = {"blur_radius": 1, "sigma": 1.0}
    blurred = Part("ImageBlur", blur, {"image": (1, 0)}, ("IMAGE",))
    parts = {1: IMAGE, 2: blurred, 3: TEXT, 4: manager((2, 0), (3, 0)), 5: writer(context=(4, 0))}
    assert client.queue(as_prompt(parts))


def test_a_pasted_key_gets_nowhere(client: ComfyClient) -> None:
    parts = {1: provider(key=KEY), 2: key_node(context=(1, 0)), 3: writer(context=(2, 0))}
    body = json.dumps(as_workflow(parts)).encode()
    request = urllib.request.Request(f"{client.url}/vivace/migrate", body)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        text = response.read().decode()
    assert KEY not in text
    found = json.loads(text)
    assert [node["id"] for node in found["workflow"]["nodes"]] == [3]
    assert "2: APIKeyInput is part of 3 now" in found["report"]["lines"]


def test_music_and_its_preview_are_accepted(client: ComfyClient) -> None:
    parts = {
        1: Part("SunoProviderSelector", {"llm_model": "V4", "external_api_key": ""}),
        2: Part("GenerateMusic", {"prompt": "A walk", "save_name": ""}, {"context": (1, 0)}),
        3: Part("PreviewOutputs", {}, {"context": (2, 0)}, ("*", "AUDIO", "IMAGE", "STRING")),
        4: Part("PreviewAudio", {}, {"audio": (3, 1)}, ()),
    }
    assert client.queue(as_prompt(parts))
    client.post("/queue", {"clear": True})
    client.post("/interrupt", {})
