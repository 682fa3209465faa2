"""The routes of the LoRA editor, and the text input of LoRA Stack, in a real ComfyUI."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from support.graphs import KOHYA, PEFT, node, row, stack_prompt
from vivace.devkit.doubles.demo_models import LORAS, lora_state_dict, save
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError
from vivace.devkit.rig.server import ComfyServer

FOLDER = "vivace-test-routes"
INK = f"{FOLDER}/deep/ink.safetensors"
STACKS = "/vivace/stacks"


@pytest.fixture(scope="module", autouse=True)
def ink(models: Path) -> Iterator[Path]:
    """A LoRA in a folder of its own, with a sidecar file and a preview."""
    path = models / "loras" / INK
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save(lora_state_dict(LORAS[0]), path)
        card = {"trainedWords": ["inkstyle", "black ink"], "baseModel": "Qwen"}
        path.with_suffix(".civitai.info").write_text(json.dumps(card))
        path.with_suffix(".json").write_text("{")
        Image.new("RGB", (4, 3), "red").save(path.with_suffix(".preview.webp"))
        shutil.copy(path, path.with_name("plain.safetensors"))
        yield path
    finally:
        shutil.rmtree(models / "loras" / FOLDER)


def call(
    client: ComfyClient, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Status and JSON of an answer, or its headers and bytes if it is none."""
    address = client.url + quote(path, safe="/?=&%")
    request = urllib.request.Request(address, body, headers, method=method)  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=60)  # noqa: S310 - our own server
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        status, content = int(answer.status or 0), answer.read()
        if answer.headers.get_content_type() == "application/json":
            return status, json.loads(content)
        return status, (answer.headers, content)


def get(client: ComfyClient, path: str) -> tuple[int, Any]:
    return call(client, "GET", path)


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_every_lora_is_listed_with_its_preview(client: ComfyClient, ink: Path, prefix: str) -> None:
    status, answer = get(client, f"{prefix}/vivace/loras")
    entries = {entry["name"]: entry for entry in answer["loras"]}
    assert status == 200
    assert list(entries) == sorted(entries)
    assert entries[INK] == {"name": INK, "preview": True, "modified": ink.stat().st_mtime}
    assert entries[f"{FOLDER}/deep/plain.safetensors"]["preview"] is False
    assert {PEFT, KOHYA} < set(entries)


@pytest.mark.parametrize("name", [INK, INK.replace("/", "\\"), "ink", "deep/ink.safetensors"])
def test_info_is_what_is_known(client: ComfyClient, ink: Path, name: str) -> None:
    status, info = get(client, f"/vivace/lora/info?name={name}")
    assert status == 200
    assert info["name"] == INK
    assert info["architecture"] == "Qwen-Image"
    assert info["base_model"] == "Qwen"
    assert (info["format"], info["rank"], info["modules"]) == ("LoRA", 8, 4)
    assert info["trigger_words"] == ["inkstyle", "black ink"]
    assert info["problems"] == ["ink.json is ignored: it is no JSON object."]
    assert info["size"] == ink.stat().st_size
    assert str(ink.parent) not in json.dumps(info)


def test_a_preview_is_the_image_file(client: ComfyClient, ink: Path) -> None:
    status, (headers, content) = get(client, f"/vivace/lora/preview?name={INK}")
    assert status == 200
    assert headers["Content-Type"] == "image/webp"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert content == ink.with_suffix(".preview.webp").read_bytes()
    status, answer = get(client, f"/vivace/lora/preview?name={PEFT}")
    assert (status, answer) == (404, {"error": f"The LoRA '{PEFT}' has no preview image."})


@pytest.mark.parametrize("route", ["info", "preview"])
@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "Say which LoRA"),
        ("?name=", 400, "Say which LoRA"),
        ("?name=../../../etc/passwd", 404, "not in ComfyUI's loras folders"),
        ("?name=/etc/passwd", 404, "not in ComfyUI's loras folders"),
        (f"?name={FOLDER}/deep/ink.json", 404, "not in ComfyUI's loras folders"),
        (f"?name={FOLDER}/ink.safetensors", 404, f"Did you mean {INK}?"),
        ("?name=%00", 404, "not in ComfyUI's loras folders"),
    ],
)
def test_no_file_but_a_listed_one_is_opened(
    client: ComfyClient, route: str, query: str, status: int, words: str
) -> None:
    answered, answer = get(client, f"/vivace/lora/{route}{query}")
    assert answered == status
    assert words in answer["error"]


def test_a_broken_lora_is_named_without_its_path(client: ComfyClient, ink: Path) -> None:
    broken = ink.with_name("broken.safetensors")
    broken.write_bytes(b"<!DOCTYPE html><html>please log in</html>")
    status, answer = get(client, "/vivace/lora/info?name=broken")
    assert status == 400
    assert answer["error"].startswith("broken.safetensors: this is a web page")
    assert get(client, "/vivace/loras")[0] == 200
    broken.unlink()


def put(client: ComfyClient, name: str, body: Any) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return call(client, "PUT", f"{STACKS}/{name}", content, **{"Content-Type": "application/json"})


def test_stacks_are_saved_replaced_and_deleted(client: ComfyClient, server: ComfyServer) -> None:
    assert get(client, STACKS) == (200, {"stacks": {}, "problems": []})
    rows = [row(INK, 0.5), {**row(PEFT, 1.0, on=False), "strength_clip": 0.25}]
    assert put(client, "Ink & öl 100%25", rows) == (200, {"rows": rows})
    assert put(client, "other", {"lora_1": {"on": True, "lora": "a", "strengthTwo": 2}})[0] == 200
    assert put(client, "other", [{"name": "b", "clipStrength": 0.5, "active": True}])[0] == 200
    other = [{"on": True, "lora": "b", "strength": 1.0, "strength_clip": 0.5}]
    stacks = {"Ink & öl 100%": rows, "other": other}
    assert get(client, STACKS)[1] == {"stacks": stacks, "problems": []}
    folder = server.work / "user" / "default" / "vivace" / "stacks"
    assert sorted(path.name for path in folder.iterdir()) == ["Ink & öl 100%.json", "other.json"]

    (folder / "half.json").write_text('{"rows": [')
    _, answer = get(client, STACKS)
    assert answer["stacks"] == stacks
    assert answer["problems"] == [
        "half.json: damaged: not a JSON object. Repair it in an editor, or move it away."
    ]
    for name in ("Ink & öl 100%25", "other", "half"):
        assert call(client, "DELETE", f"{STACKS}/{name}")[0] == 200
    assert get(client, STACKS)[1] == {"stacks": {}, "problems": []}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("x", b"{", "no JSON"),
        ("x", b"[" * 100_000, "no JSON"),
        ("x", b"\xff", "no JSON"),
        ("x", 5, "rows must be a list"),
        ("x", [{"lora": "a"}, {"lora": "b", "strength": "x"}], "rows[1].strength must be a number"),
        ("%2e%2e%2fup", [], "cannot name a stack"),
        ("a%2fb", [], "cannot name a stack"),
        ("nul", [], "cannot name a stack"),
    ],
)
def test_bad_stacks_are_refused(client: ComfyClient, name: str, body: Any, words: str) -> None:
    status, answer = put(client, name, body)
    assert status == 400
    assert words in answer["error"]
    assert get(client, STACKS)[1]["stacks"] == {}


def test_an_exported_file_is_imported_whole_or_not_at_all(client: ComfyClient) -> None:
    def post(body: Any, query: str = "") -> tuple[int, Any]:
        content = json.dumps({"vivace_stacks": body}).encode()
        return call(client, "POST", f"/vivace/stack_bundle{query}", content)

    mine, theirs = [row(PEFT, 0.5)], [row(INK, 1.0)]
    put(client, "mine", mine)
    status, answer = post({"new": theirs, "bad": [{"lora": 5}]})
    assert (status, "'bad'" in answer["error"]) == (400, True)
    assert get(client, STACKS)[1]["stacks"] == {"mine": mine}
    assert post({"mine": theirs, "new": theirs}) == (200, {"saved": ["new"]})
    assert get(client, STACKS)[1]["stacks"] == {"mine": mine, "new": theirs}
    assert post({"mine": theirs}, "?existing=replace") == (200, {"saved": ["mine"]})
    assert get(client, STACKS)[1]["stacks"] == {"mine": theirs, "new": theirs}
    for name in ("mine", "new"):
        call(client, "DELETE", f"{STACKS}/{name}")


def test_a_stack_that_is_not_there_cannot_be_deleted(client: ComfyClient) -> None:
    status, answer = call(client, "DELETE", f"{STACKS}/none")
    assert (status, answer) == (404, {"error": "There is no stack 'none'."})


def outputs(client: ComfyClient, prompt: Prompt) -> tuple[Any, str, str]:
    """LORA_STACK, trigger words and text of the stack node."""
    for index in (2, 3, 4):
        prompt[f"shown {index}"] = node("PreviewAny", source=["stack", index])
    ran = client.run(prompt)
    stack, words, text = (ran[f"shown {index}"]["text"][0] for index in (2, 3, 4))
    return json.loads(stack), words, text


def test_loras_come_out_of_the_text_after_the_rows(client: ComfyClient) -> None:
    text = f"a cat, <lora:ink:0.5:0.25>, in the rain <lora:{KOHYA}:0>"
    prompt = stack_prompt([{**row(PEFT, 0.75), "strength_clip": 0}], text=text)
    stack, words, rest = outputs(client, prompt)
    assert stack == [[PEFT, 0.75, 0.0], [INK, 0.5, 0.25]]
    assert words == "inkstyle, black ink"
    assert rest == "a cat, in the rain"


def test_a_text_from_another_node_is_the_same(client: ComfyClient) -> None:
    prompt = stack_prompt([])
    prompt["prompt"] = node("PrimitiveStringMultiline", value="rain, <lora:ink>")
    prompt["stack"]["inputs"]["text"] = ["prompt", 0]
    assert outputs(client, prompt) == ([[INK, 1.0, 1.0]], "inkstyle, black ink", "rain")
    prompt["prompt"]["inputs"]["value"] = "rain <lora:twin>"
    with pytest.raises(PromptFailedError, match="'twin' is not in ComfyUI's loras folders"):
        client.run(prompt)


def test_a_row_for_the_text_encoder_alone_leaves_the_model(client: ComfyClient) -> None:
    rows = [{**row(INK, 0.0), "strength_clip": 0.5}, row("not there", 0.0)]
    prompt = stack_prompt(rows)
    stack, words, rest = outputs(client, prompt)
    assert stack == [[INK, 0.0, 0.5]]
    assert (words, rest) == ("inkstyle, black ink", "")
    assert client.run(prompt)["weights"]["patched"] == [0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<lora:inkk:1>", "'inkk' is not in ComfyUI's loras folders"),
        ("<lora:ink:strong>", "a strength that is no number"),
        ("<lora:../../etc/passwd>", "not in ComfyUI's loras folders"),
    ],
)
def test_a_wrong_text_is_refused_when_queueing(client: ComfyClient, text: str, words: str) -> None:
    with pytest.raises(PromptRejectedError) as refusal:
        client.queue(stack_prompt([], text=text))
    assert words in refusal.value.messages("stack")


def executed(client: ComfyClient, prompt: Prompt) -> set[str]:
    """The nodes that ran, not counting those whose outputs were known."""
    prompt_id = client.queue(prompt)
    client.wait(prompt_id)
    messages = client.get_json(f"/history/{prompt_id}")[prompt_id]["status"]["messages"]
    known = next(set(details["nodes"]) for kind, details in messages if kind == "execution_cached")
    return set(prompt) - known


def test_the_stack_runs_again_only_if_a_file_changed(client: ComfyClient, ink: Path) -> None:
    prompt = stack_prompt([row(INK, 0.125)], text="<lora:plain:0.5>")
    assert "stack" in executed(client, prompt)
    assert "stack" not in executed(client, prompt)
    notes = ink.with_suffix(".txt")
    notes.write_text("new")
    assert "stack" in executed(client, prompt)
    notes.unlink()
