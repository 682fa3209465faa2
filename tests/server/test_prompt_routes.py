"""The routes of the prompt library in a real ComfyUI."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer

PROMPTS = "/vivace/prompts"
BUNDLE = "/vivace/prompt_bundle"
HISTORY = "/vivace/prompt_history"


def prompt(positive: str, negative: str = "", *tags: str, note: str = "") -> dict[str, Any]:
    return {"positive": positive, "negative": negative, "tags": list(tags), "note": note}


CAT = prompt("a {red|grey} cat", "blurry", "animal", "🐈", note="for öl")
DOG = prompt("a dog")


def call(client: ComfyClient, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(client.url + path, content, headers, method=method)  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=60)  # noqa: S310 - our own server
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return int(answer.status or 0), json.loads(answer.read())


def of(name: str) -> str:
    return f"{PROMPTS}/{quote(name, safe='')}"


def names(client: ComfyClient) -> list[str]:
    return list(call(client, "GET", PROMPTS)[1]["prompts"])


@pytest.mark.usefixtures("prompts_folder")
def test_prompts_are_saved_read_renamed_and_deleted(
    client: ComfyClient, prompts_folder: Path
) -> None:
    assert call(client, "GET", PROMPTS) == (
        200,
        {"prompts": {}, "revisions": {}, "problems": []},
    )
    assert not prompts_folder.exists()
    name = "animals/Ink & öl 100%"
    assert call(client, "PUT", of(name), CAT) == (200, {"name": name, "prompt": CAT})
    assert call(client, "PUT", of("dog"), DOG)[0] == 200
    assert call(client, "GET", of(name)) == (200, {"name": name, "prompt": CAT})
    assert call(client, "GET", PROMPTS)[1]["prompts"] == {name: CAT, "dog": DOG}
    assert json.loads((prompts_folder / f"{name}.json").read_text(encoding="utf-8")) == CAT

    assert call(client, "PATCH", of(name), {"name": "cats/1"}) == (200, {"name": "cats/1"})
    assert names(client) == ["cats/1", "dog"]
    assert call(client, "DELETE", of("cats/1")) == (200, {"deleted": "cats/1"})
    assert names(client) == ["dog"]

    (prompts_folder / "half.json").write_text('{"positive": ')
    _, answer = call(client, "GET", PROMPTS)
    problem = "half.json: damaged: not a JSON object. Repair it in an editor, or move it away."
    assert (list(answer["revisions"]), answer["problems"]) == (["dog"], [problem])
    assert call(client, "GET", of("half")) == (400, {"error": problem})
    assert call(client, "DELETE", of("half"))[0] == 200


@pytest.mark.usefixtures("prompts_folder")
def test_what_is_there_is_replaced_only_on_purpose(client: ComfyClient) -> None:
    assert call(client, "PUT", of("cat") + "?overwrite=false", CAT)[0] == 200
    status, answer = call(client, "PUT", of("cat") + "?overwrite=false", DOG)
    assert (status, answer["error"][:34]) == (409, "there is a prompt 'cat' already. C")
    assert call(client, "GET", of("cat"))[1]["prompt"] == CAT
    assert call(client, "PUT", of("cat"), DOG)[0] == 200
    assert call(client, "GET", of("cat"))[1]["prompt"] == DOG
    status, answer = call(client, "PUT", of("Cat"), CAT)
    assert (status, "only in case" in answer["error"]) == (409, True)
    call(client, "PUT", of("other"), CAT)
    assert call(client, "PATCH", of("other"), {"name": "cat"})[0] == 409
    assert names(client) == ["cat", "other"]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "name",
    ["../up", "/etc/passwd", "a/../../b", ".history", ".lock", "nul", "a\\b", "c:x", "x" * 300],
)
def test_no_name_leads_anywhere_else(
    client: ComfyClient, server: ComfyServer, prompts_folder: Path, method: str, name: str
) -> None:
    body = {"name": "fine"} if method == "PATCH" else CAT
    status, answer = call(client, method, of(name), None if method in ("GET", "DELETE") else body)
    assert status == 400
    assert "cannot name a prompt" in answer["error"]
    assert str(server.work) not in answer["error"]
    assert not prompts_folder.exists()


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_prompt_that_is_not_there(client: ComfyClient, prompts_folder: Path, method: str) -> None:
    body = {"name": "b"} if method == "PATCH" else None
    status, answer = call(client, method, of("none"), body)
    assert status == 404
    assert answer["error"].startswith("there is no prompt 'none'")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        ([1], 400, "must be a JSON object"),
        ({}, 400, "needs a text 'positive'"),
        ({"positive": 1}, 400, "needs a text 'positive'"),
        ({"positive": "x", "tags": "animal"}, 400, "'tags' as texts"),
        ({"positive": "x" * 2**20}, 413, "more than 1024 KiB"),
    ],
)
def test_bad_prompts_are_refused(
    client: ComfyClient, prompts_folder: Path, body: Any, status: int, words: str
) -> None:
    answered, answer = call(client, "PUT", of("x"), body)
    assert answered == status
    assert words in answer["error"]
    assert not prompts_folder.exists()


def test_prompts_travel_as_a_file(client: ComfyClient, prompts_folder: Path) -> None:
    for name, content in (("a/cat", CAT), ("dog", DOG)):
        call(client, "PUT", of(name), content)
    everything = call(client, "GET", BUNDLE)[1]
    assert everything == {"vivace_prompts": {"a/cat": CAT, "dog": DOG}}
    some = call(client, "GET", f"{BUNDLE}?name=dog")[1]
    assert some == {"vivace_prompts": {"dog": DOG}}
    assert call(client, "GET", f"{BUNDLE}?name=cow")[0] == 404

    shutil.rmtree(prompts_folder)
    call(client, "PUT", of("dog"), CAT)
    done = call(client, "POST", BUNDLE, everything)
    assert done == (200, {"saved": ["a/cat"], "skipped": ["dog"]})
    assert call(client, "POST", f"{BUNDLE}?existing=rename", everything)[1]["saved"] == ["dog 2"]
    assert call(client, "POST", f"{BUNDLE}?existing=replace", everything)[1]["saved"] == ["dog"]
    found = call(client, "GET", PROMPTS)[1]["prompts"]
    assert found == {"a/cat": CAT, "dog": DOG, "dog 2": DOG}


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("", {"vivace_prompts": {"x": DOG, "../up": CAT}}, "cannot name a prompt"),
        ("", {"vivace_prompts": {"x": DOG, "y": {"positive": 5}}}, "needs a text"),
        ("", {"vivace_stacks": {}}, "not a file of exported prompts"),
        ("", [], "must be a JSON object"),
        ("?existing=all", {"vivace_prompts": {"x": DOG}}, "keep, replace, rename"),
    ],
)
def test_a_bad_file_is_not_imported_in_part(
    client: ComfyClient, prompts_folder: Path, query: str, body: Any, words: str
) -> None:
    status, answer = call(client, "POST", BUNDLE + query, body)
    assert status == 400
    assert words in answer["error"]
    assert names(client) == []


def test_many_writers_at_once_lose_nothing(client: ComfyClient, prompts_folder: Path) -> None:
    results: list[int] = []

    def write(number: int) -> None:
        for turn in range(5):
            results.append(call(client, "PUT", of(f"w{number}/{turn}"), prompt(f"{number}"))[0])
            results.append(call(client, "PUT", of("shared"), prompt(f"{number} {turn}"))[0])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200] * 60
    found = call(client, "GET", PROMPTS)[1]
    assert len(found["prompts"]) == 31
    assert found["problems"] == []


def test_the_history_is_read_and_forgotten(client: ComfyClient, prompts_folder: Path) -> None:
    assert call(client, "GET", HISTORY) == (200, {"runs": []})
    prompts_folder.mkdir(parents=True)
    (prompts_folder / ".history.json").write_text("{")
    status, answer = call(client, "GET", HISTORY)
    assert status == 400
    assert answer["error"].startswith(".history.json: damaged")
    assert call(client, "DELETE", HISTORY) == (200, {"runs": []})
    assert call(client, "GET", HISTORY) == (200, {"runs": []})


@pytest.mark.usefixtures("prompts_folder")
def test_what_another_has_changed_is_not_lost(client: ComfyClient) -> None:
    def revision(name: str) -> str:
        return call(client, "GET", PROMPTS)[1]["revisions"][name]

    call(client, "PUT", of("cat"), CAT)
    seen = f"?revision={revision('cat')}"
    assert call(client, "PUT", of("cat"), CAT)[0] == 200  # the same again
    assert call(client, "PUT", of("cat") + seen, DOG)[0] == 200
    for method, body in (("PUT", CAT), ("PATCH", {"name": "cow"}), ("DELETE", None)):
        status, answer = call(client, method, of("cat") + seen, body)
        assert (status, answer["error"]) == (
            409,
            "the prompt 'cat' has been changed meanwhile. Look at it",
        )
    assert call(client, "GET", PROMPTS)[1]["prompts"] == {"cat": DOG}
    now = f"?revision={revision('cat')}"
    assert call(client, "PATCH", of("cat") + now, {"name": "cow"})[0] == 200
    for method, body in (("PUT", CAT), ("PATCH", {"name": "cat"}), ("DELETE", None)):
        assert call(client, method, of("cat") + now, body)[0] == 404
    assert call(client, "DELETE", of("cow") + now)[0] == 200
    assert names(client) == []
