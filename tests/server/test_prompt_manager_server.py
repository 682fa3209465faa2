"""Prompt Manager in a real ComfyUI, by prompts over HTTP."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.graphs import node
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError
from vivace.devkit.rig.layout import OUT
from vivace.devkit.rig.server import ComfyServer
from vivace.toolkit import prompt_library
from vivace.toolkit.prompt_library import PromptLibrary, expand_prompt

CAT = prompt_library.SavedPrompt("a {red|grey|blue|black} {animal}", "{dog|cow}, blurry")


@pytest.fixture
def library(server: ComfyServer) -> Iterator[PromptLibrary]:
    path = server.work / "user" / "default" / "vivace" / "prompts"
    shutil.rmtree(path, ignore_errors=True)
    yield PromptLibrary(path)
    shutil.rmtree(path, ignore_errors=True)


def graph(**inputs: Any) -> Prompt:
    prompt = {"manager": node("VivacePromptManager", **inputs)}
    for place in range(4):
        prompt[f"shown {place}"] = node("PreviewAny", source=["manager", place])
    return prompt


def run(client: ComfyClient, **inputs: Any) -> tuple[str, ...]:
    """Positive and negative text, name and seed."""
    outputs = client.run(graph(**inputs))
    return tuple(outputs[f"shown {place}"]["text"][0] for place in range(4))


@pytest.mark.usefixtures("library")
def test_a_text_of_ones_own_is_enough(client: ComfyClient) -> None:
    assert run(client, positive="a cat", negative="dogs") == ("a cat", "dogs", "", "0")
    assert run(client) == ("", "", "", "0")


def test_the_name_of_a_saved_prompt_is_enough(client: ComfyClient, library: PromptLibrary) -> None:
    library.save("animals/cat", CAT)
    for seed in range(4):
        texts = expand_prompt(CAT, {"animal": "cat"}, seed)
        found = run(client, prompt="animals/cat", variables="animal = cat", seed=seed)
        assert found == (*texts, "animals/cat", str(seed))


def test_with_a_text_the_name_is_but_a_name(client: ComfyClient, library: PromptLibrary) -> None:
    library.save("cat", CAT)
    assert run(client, prompt="cat", negative="x") == ("", "x", "cat", "0")
    assert run(client, prompt="not there", positive="y") == ("y", "", "not there", "0")


def test_a_changed_prompt_runs_again_and_the_history_keeps_the_old_text(
    client: ComfyClient, library: PromptLibrary
) -> None:
    library.save("cat", prompt_library.SavedPrompt("first"))
    first = client.queue(graph(prompt="cat"))
    assert client.wait(first)["shown 0"]["text"] == ["first"]
    library.save("cat", prompt_library.SavedPrompt("second"))
    assert run(client, prompt="cat")[0] == "second"
    library.delete("cat")
    queued = client.get_json(f"/history/{first}")[first]["prompt"][2]
    assert client.run(queued)["shown 0"]["text"] == ["first"]


def test_what_was_run_is_kept(client: ComfyClient, library: PromptLibrary) -> None:
    library.save("cat", CAT)
    run(client, prompt="cat", variables='{"animal": "kätzchen"}', seed=3)
    run(client, positive="other", seed=2**64 - 1)
    kept = [(r.name, r.positive, r.seed, dict(r.variables)) for r in library.history()]
    text = expand_prompt(CAT, {"animal": "kätzchen"}, 3)[0]
    assert kept == [
        ("cat", text, 3, {"animal": "kätzchen"}),
        ("", "other", 2**64 - 1, {}),
    ]
    runs = client.get_json("/vivace/prompt_history")["runs"]
    assert [run["positive"] for run in runs] == ["other", text]


def test_a_damaged_history_stops_no_run(
    client: ComfyClient, library: PromptLibrary, server: ComfyServer
) -> None:
    library.save("cat", CAT)
    path = server.work / "user" / "default" / "vivace" / "prompts" / ".history.json"
    path.write_text("{")
    assert run(client, positive="still here")[0] == "still here"
    assert path.read_text() == "{"


def test_links_give_texts_and_values(client: ComfyClient, library: PromptLibrary) -> None:
    prompt = graph(positive=["text", 0], variables=["values", 0])
    prompt["text"] = node("PrimitiveStringMultiline", value="a {colour} cat")
    prompt["values"] = node("PrimitiveStringMultiline", value="colour = {red}")
    assert client.run(prompt)["shown 0"]["text"] == ["a {red} cat"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"positive": "a {red cat"}, "positive: line 1, column 3"),
        ({"negative": "}"}, "negative: line 1, column 1"),
        ({"variables": "red"}, "variables: line 1 of variables gives no value"),
        ({"prompt": "../x"}, "prompt: '../x' cannot name a prompt"),
    ],
)
def test_what_is_wrong_is_refused_when_queueing(
    client: ComfyClient, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(PromptRejectedError) as refusal:
        client.queue(graph(**inputs))
    assert words in refusal.value.messages("manager")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"positive": "a {colour} cat", "variables": "color = red"}, r"colour.*given are: color"),
        ({"prompt": "none"}, "there is no prompt 'none'"),
        ({"prompt": 5}, "there is no prompt '5'"),  # ComfyUI makes a text of it
        ({"prompt": "bad"}, "bad.json: damaged"),
    ],
)
def test_what_cannot_be_run(
    client: ComfyClient, library: PromptLibrary, server: ComfyServer, inputs: Any, words: str
) -> None:
    library.save("cat", CAT)
    path = server.work / "user" / "default" / "vivace" / "prompts" / "bad.json"
    path.write_text("{")
    with pytest.raises(PromptFailedError, match=words):
        client.run(graph(**inputs))


@pytest.fixture(scope="module")
def shared(comfyui_folder: Path) -> Iterator[ComfyServer]:
    """A server with several users."""
    work = OUT / "tests" / "users"
    shutil.rmtree(work, ignore_errors=True)
    arguments = ["--multi-user"]
    server = ComfyServer(
        Path(sys.executable), comfyui_folder, work, arguments=arguments, log=work / "server.log"
    )
    with server:
        server.wait_until_ready()
        yield server


def test_each_user_has_a_library(shared: ComfyServer) -> None:
    import urllib.request

    def post(path: str, body: Any, user: str = "") -> Any:
        headers = {"Content-Type": "application/json", "comfy-user": user}
        address = shared.url + path
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    client = ComfyClient(shared.url)
    ada, bob = (post("/users", {"username": name}) for name in ("ada", "bob"))
    for user in (ada, bob):
        root = shared.work / "user" / user / "vivace" / "prompts"
        PromptLibrary(root).save("mine", prompt_library.SavedPrompt(f"of {user}"))
    for user, other in ((ada, bob), (bob, ada)):
        # Whoever asks has no say in whose library it is.
        prompt = graph(prompt="mine", user=other, seed=1)
        outputs = client.wait(post("/prompt", {"prompt": prompt}, user)["prompt_id"])
        assert outputs["shown 0"]["text"] == [f"of {user}"]
    unknown = post("/prompt", {"prompt": graph(prompt="mine", user=ada)}, "nobody")
    with pytest.raises(PromptFailedError, match="this user has no folder"):
        client.wait(unknown["prompt_id"])
    for user in (ada, bob):
        root = shared.work / "user" / user / "vivace" / "prompts"
        assert [run.positive for run in PromptLibrary(root).history()] == [f"of {user}"]
    assert sorted(p.name for p in (shared.work / "user").iterdir() if p.is_dir()) == [ada, bob]
