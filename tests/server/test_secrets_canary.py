"""No key gets out: workflows run with keys, then everything that the server left is searched."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.canary import Listener, everything, leaks
from support.graphs import node
from support.openai_server import (
    Behaviour,
    Exchange,
    OpenAIServer,
    answer,
    delta,
    stream,
    stream_exactly,
)
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError
from vivace.devkit.rig.layout import OUT
from vivace.devkit.rig.server import ComfyServer
from vivace.vlm.remote.key_shape import REMOVED

VARIABLE = "VIVACE_CANARY_API_KEY"
KEYS = {
    "environment variable": "sk-env/4f1d+Canary==0a9b8c7d",
    "keyring": "Kq7xCanaryRing0000zZ99pP55mM",
    "secrets file": "hf_CanaryFile77112233445566 ü".replace(" ü", ""),
}
NAMES = {"environment variable": VARIABLE, "keyring": "lab", "secrets file": "lab"}
PASTED = "sk-pasted-Canary-9f8e7d6c5b4a3f2e1d0c"
# A backend of the real keyring package, over a file in place of the operating system's.
KEYRING = """
import pathlib

import keyring
from keyring.backend import KeyringBackend


class FileKeyring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        held = (service, username) == ("ComfyUI-Vivace", "lab")
        return pathlib.Path({path!r}).read_text() if held else None

    def set_password(self, service, username, password):
        raise NotImplementedError

    def delete_password(self, service, username):
        raise NotImplementedError


keyring.set_keyring(FileKeyring())
NODE_CLASS_MAPPINGS = {{}}
"""


@pytest.fixture(scope="module")
def vault() -> Path:
    """The files that hold keys; all others must not."""
    folder = OUT / "tests" / "canary-vault"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "ring").write_text(KEYS["keyring"])
    return folder


@pytest.fixture(scope="module")
def guarded(comfyui_folder: Path, vault: Path) -> Iterator[ComfyServer]:
    """A server with a key in each of the three sources."""
    work = OUT / "tests" / "canary"
    shutil.rmtree(work, ignore_errors=True)
    nodes = work / "custom_nodes"
    nodes.mkdir(parents=True)
    (nodes / "file_keyring.py").write_text(KEYRING.format(path=str(vault / "ring")))
    secrets = secrets_file(work)
    secrets.parent.mkdir(parents=True)
    secrets.write_text(f"lab={KEYS['secrets file']}\n")
    secrets.chmod(0o600)
    os.environ[VARIABLE] = KEYS["environment variable"]
    server = ComfyServer(
        Path(sys.executable),
        comfyui_folder,
        work,
        arguments=["--verbose", "DEBUG"],
        model_dirs={"custom_nodes": [nodes]},
        log=work / "server.log",
    )
    try:
        with server:
            server.wait_until_ready()
            yield server
    finally:
        del os.environ[VARIABLE]


def outputs_of(client: ComfyClient, name: str) -> list[str]:
    return client.get_json(f"/object_info/{name}")[name]["output"]


def secrets_file(work: Path) -> Path:
    return work / "user" / "__vivace" / "secrets.env"


def wants(key: str) -> Behaviour:
    """Answers who has the key, and says what it got to everybody else."""

    def behave(exchange: Exchange) -> None:
        given = exchange.request.authorization
        right = given == f"Bearer {key}"
        behaviour = stream("It is ", "red.") if right else answer(401, {"error": str(given)})
        behaviour(exchange)

    return behave


def redirect(key: str) -> Behaviour:
    return answer(307, "", Location=f"http://127.0.0.1:9/{key}/v1?key={key}")


# Each answers with the key that it was given, which is what a debugging proxy might do.
ECHOES: dict[str, Callable[[str], Behaviour]] = {
    "401": lambda key: answer(401, {"error": {"message": f"Incorrect key: {key}"}}),
    "403 as text": lambda key: answer(403, f"<p>Bearer {key}</p>", "text/html"),
    "400": lambda key: answer(400, {"detail": [{"input": {"authorization": key}}]}),
    "no such model": lambda key: answer(404, {"error": f"model not found for {key}"}),
    "500": lambda key: answer(500, f"trace: headers={{'Authorization': 'Bearer {key}'}}"),
    "redirect": redirect,
    "garbage": lambda key: answer(200, f"hello {key}", "text/plain"),
    "error in the stream": lambda key: stream_exactly({"error": {"message": f"bad {key}"}}),
    "error after text": lambda key: stream_exactly(
        delta(content="So "), {"error": {"message": f"bad {key}"}}
    ),
    "no choices": lambda key: answer(200, {"key": key}),
}


_colors = count()


# The nodes that ask servers, and what each needs beside the inputs that they share.
ASKING: dict[str, dict[str, Any]] = {
    "VivaceQwenVL": {"preset": "None (my prompt only)"},
    "VivaceGenerateText": {"system_prompt": "Be brief."},
}


def graph(url: str, source: str, name: str, asking: str = "VivaceQwenVL") -> Prompt:
    """A picture that is asked about and saved, each of another colour; the answer is shown."""
    server = {"engine": "server", "engine.address": url, "engine.server_model": "tiny"}
    return {
        "key": node("VivaceApiKey", source=source, key_name=name),
        "picture": node("EmptyImage", width=32, height=32, batch_size=1, color=next(_colors)),
        "ask": node(
            asking,
            prompt="What is it?",
            **ASKING[asking],
            api_key=["key", 0],
            **{"images.image0": ["picture", 0]},
            **server,
        ),
        "shown": node("PreviewAny", source=["ask", 0]),
        "handle": node("PreviewAny", source=["key", 0]),
        "saved": node("SaveImage", images=["picture", 0], filename_prefix="canary"),
    }


def queue(client: ComfyClient, prompt: Prompt) -> str:
    """Queue a prompt as the editor does, with its workflow for the images."""
    nodes = [
        {"type": n["class_type"], "widgets_values": list(n["inputs"].values())}
        for n in prompt.values()
    ]
    extra = {"extra_pnginfo": {"workflow": {"nodes": nodes, "version": 0.4}}}
    body = {"prompt": prompt, "client_id": client.client_id, "extra_data": extra}
    found = post(client, body)
    if "prompt_id" not in found:
        raise PromptRejectedError(found)
    return found["prompt_id"]


def post(client: ComfyClient, body: dict[str, Any]) -> dict[str, Any]:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(f"{client.url}/prompt", json.dumps(body).encode())  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("source", KEYS)
def test_a_key_reaches_the_server_and_nothing_else(
    guarded: ComfyServer, vault: Path, source: str, asking: str
) -> None:
    key, client, since = KEYS[source], ComfyClient(guarded.url), time.time()
    with OpenAIServer(wants(key)) as remote, Listener(client) as socket:
        outputs = client.wait(queue(client, graph(remote.url, source, NAMES[source], asking)))
        assert outputs["shown"]["text"] == ["It is red."]
        assert [request.authorization for request in remote.posts] == [f"Bearer {key}"]
        assert key.encode() not in remote.posts[0].body
        places = everything(guarded, client, since, {secrets_file(guarded.work)})
    assert outputs["handle"]["text"][0].startswith(("Secret", "<Secret", source[:7]))
    image = guarded.output / outputs["saved"]["images"][0]["filename"]
    with Image.open(image) as opened:
        metadata = {k: v for k, v in opened.info.items() if isinstance(v, str)}
    assert NAMES[source] in metadata["prompt"]
    assert "VivaceApiKey" in metadata["workflow"]
    places += [("image", json.dumps(metadata).encode())]
    places += [("websocket", message) for message in socket.messages]
    names = [name for name, _ in places]
    assert len(socket.messages) > 5
    assert {str(image), str(guarded.log), "/history"} <= set(names)
    assert leaks(places, key) == []


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("echo", ECHOES)
def test_a_server_that_repeats_the_key_in_its_errors(
    guarded: ComfyServer, vault: Path, echo: str, asking: str
) -> None:
    source = list(KEYS)[list(ECHOES).index(echo) % len(KEYS)]
    key, client, since = KEYS[source], ComfyClient(guarded.url), time.time()
    with OpenAIServer(ECHOES[echo](key), models=(f"tiny-{key}",)) as remote:
        with Listener(client) as socket, pytest.raises(PromptFailedError) as failure:
            client.wait(queue(client, graph(remote.url, source, NAMES[source], asking)))
        assert {request.authorization for request in remote.posts} == {f"Bearer {key}"}
    assert failure.value.details["node_id"] == "ask"
    places = everything(guarded, client, since, {secrets_file(guarded.work)})
    places += [("websocket", message) for message in socket.messages]
    places += [("error", json.dumps(failure.value.details).encode())]
    assert leaks(places, key) == []


@pytest.mark.parametrize("source", KEYS)
def test_a_key_in_place_of_its_name_is_refused_and_forgotten(
    guarded: ComfyServer, source: str
) -> None:
    client, since = ComfyClient(guarded.url), time.time()
    with Listener(client) as socket, OpenAIServer() as remote:
        prompt = graph(remote.url, source, f" {PASTED}\n")
        # The picture is saved all the same, and with it the workflow.
        prompt_id = queue(client, prompt)
        outputs = client.wait(prompt_id)
        assert remote.requests == []
        del prompt["saved"]
        with pytest.raises(PromptRejectedError) as refusal:
            queue(client, prompt)
    assert "looks like a key itself" in refusal.value.messages("key")
    image = guarded.output / outputs["saved"]["images"][0]["filename"]
    assert REMOVED.encode() in image.read_bytes()
    places = everything(guarded, client, since, set())
    places += [("websocket", message) for message in socket.messages]
    places += [("refusal", json.dumps(refusal.value.body).encode())]
    assert leaks(places, PASTED) == []


@pytest.mark.parametrize("asking", ASKING)
def test_a_key_in_place_of_its_variable_is_refused_and_forgotten(
    guarded: ComfyServer, asking: str
) -> None:
    client, since = ComfyClient(guarded.url), time.time()
    with Listener(client) as socket, OpenAIServer() as remote:
        prompt = graph(remote.url, "keyring", "lab", asking)
        del prompt["key"], prompt["handle"], prompt["ask"]["inputs"]["api_key"]
        prompt["ask"]["inputs"]["engine.api_key_variable"] = PASTED
        with pytest.raises(PromptFailedError) as failure:
            client.wait(queue(client, prompt))
        assert remote.requests == []
    assert failure.value.details["node_id"] == "ask"
    places = everything(guarded, client, since, set())
    places += [("websocket", message) for message in socket.messages]
    places += [("error", json.dumps(failure.value.details).encode())]
    assert leaks(places, PASTED) == []


@pytest.mark.parametrize("asking", ASKING)
def test_no_output_of_a_node_has_the_key(guarded: ComfyServer, asking: str) -> None:
    key, client = KEYS["keyring"], ComfyClient(guarded.url)
    with OpenAIServer(wants(key)) as remote:
        prompt = graph(remote.url, "keyring", "lab", asking)
        schema = outputs_of(client, asking)
        for place, _ in enumerate(schema):
            prompt[f"output {place}"] = node("PreviewAny", source=["ask", place])
        outputs = client.run(prompt)
    found = [(name, json.dumps(output).encode()) for name, output in outputs.items()]
    assert len([name for name, _ in found if name.startswith("output")]) == len(schema) >= 3
    assert leaks(found, key) == []


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("environment variable", "HOME", "only variables whose name ends in _API_KEY"),
        ("environment variable", "VIVACE_NOT_SET_API_KEY", "it is not set, or empty"),
        ("keyring", "other", "keyring set ComfyUI-Vivace other"),
        ("secrets file", "other", "no entry 'other'"),
    ],
)
def test_a_key_that_is_not_there(guarded: ComfyServer, source: str, name: str, words: str) -> None:
    client = ComfyClient(guarded.url)
    with pytest.raises(PromptFailedError, match=words):
        client.run(graph("http://127.0.0.1:9/v1", source, name))


def test_a_secrets_file_that_others_may_read_is_refused(guarded: ComfyServer) -> None:
    client, path = ComfyClient(guarded.url), secrets_file(guarded.work)
    path.chmod(0o644)
    try:
        prompt = graph("http://127.0.0.1:9/v1", "secrets file", "lab")
        prompt["key"]["inputs"]["key_name"] = "lab "  # not the node that ran already
        with pytest.raises(PromptFailedError, match="chmod 600"):
            client.run(prompt)
    finally:
        path.chmod(0o600)


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [("keyring", " ", "key_name is empty"), ("vault", "lab", "source must be one of")],
)
def test_a_wrong_name_is_refused_when_queueing(
    guarded: ComfyServer, source: str, name: str, words: str
) -> None:
    prompt = graph("http://127.0.0.1:9/v1", source, name)
    del prompt["saved"]
    with pytest.raises(PromptRejectedError) as refusal:
        ComfyClient(guarded.url).queue(prompt)
    assert words in refusal.value.messages("key")


def test_two_ways_to_name_a_key_are_one_too_many(guarded: ComfyServer) -> None:
    prompt = graph("http://127.0.0.1:9/v1", "keyring", "lab")
    prompt["ask"]["inputs"]["engine.api_key_variable"] = VARIABLE
    with pytest.raises(PromptFailedError, match="Clear one of them"):
        ComfyClient(guarded.url).run(prompt)


def test_the_secrets_file_is_not_served(guarded: ComfyServer) -> None:
    import urllib.error

    client = ComfyClient(guarded.url)
    paths = ["../__vivace/secrets.env", "__vivace/secrets.env"]
    for path in [f"/userdata/{p.replace('/', '%2F')}" for p in paths]:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            client.get(path)
        assert refusal.value.code in (400, 403, 404)
