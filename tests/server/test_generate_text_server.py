"""Generate Text in a real ComfyUI, over HTTP: small local models, and real OpenAI-like servers."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.graphs import node
from support.openai_server import OpenAIServer, answer, cut, hang, stream
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError

VISION, TEXT = "small-qwen3_vl", "text-qwen3"
SYSTEM = "To be, or not to be, that is the question: whether to suffer the slings of fortune."
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AS_SCHEMA = {"answer_format": "JSON schema", "answer_format.schema": json.dumps(SCHEMA)}


@pytest.fixture(scope="module", autouse=True)
def text_model(vlm_models: Path) -> Iterator[None]:
    """A language model without vision, beside the others."""
    from vivace.devkit.doubles.small_vlm import save_text_model

    save_text_model("Qwen3", vlm_models / TEXT)
    yield
    shutil.rmtree(vlm_models / TEXT)


def local(model: str = TEXT) -> dict[str, Any]:
    return {"engine": "local", "engine.model": model, "engine.dtype": "float32"}


def remote(server: OpenAIServer, **inputs: Any) -> dict[str, Any]:
    found = {"engine": "server", "engine.address": server.url, "engine.server_model": "tiny"}
    return found | {f"engine.{name}": value for name, value in inputs.items()}


def ask(prompt: str, **inputs: Any) -> dict[str, Any]:
    values = local() | {"prompt": prompt, "max_tokens": 8, "sampling": "greedy"}
    return node("VivaceGenerateText", **(values | inputs))


def shown(**turns: dict[str, Any]) -> Prompt:
    """The turns, and each one's conversation and usage as text."""
    prompt: Prompt = dict(turns)
    for name in turns:
        prompt[f"{name}_chat"] = node("PreviewAny", source=[name, 2])
        prompt[f"{name}_transcript"] = node("PreviewAny", source=[name, 3])
        prompt[f"{name}_usage"] = node("PreviewAny", source=[name, 4])
    return prompt


def run(client: ComfyClient, prompt: Prompt) -> dict[str, str]:
    """The first text of each node."""
    return {name: found["text"][0] for name, found in client.run(prompt).items()}


def usage(found: dict[str, str], name: str) -> dict[str, Any]:
    return json.loads(found[f"{name}_usage"])


@pytest.fixture
def fresh(client: ComfyClient) -> None:
    client.run({"cache": node("VivaceQwenVLCache", action="clear memory and disk")})


@pytest.mark.usefixtures("fresh")
def test_local_turns_and_branches_of_one_conversation(client: ComfyClient) -> None:
    found = run(
        client,
        shown(
            one=ask("Is it nobler?", system_prompt=SYSTEM),
            two=ask("To die?", chat=["one", 2]),
            three=ask("To sleep?", chat=["two", 2]),
            other=ask("No more?", chat=["one", 2], system_prompt="Be brief."),
        ),
    )
    start = f"### system\n\n{SYSTEM}\n\n### user\n\nIs it nobler?\n\n### assistant"
    assert found["one_chat"].startswith(start)
    assert found["two_chat"].startswith(found["one_chat"].rstrip("\n"))
    assert found["three_chat"].startswith(found["two_chat"].rstrip("\n"))
    assert found["three_chat"] == found["three_transcript"]
    assert "To die?" not in found["other_chat"]
    assert found["other_chat"].startswith("### system\n\nBe brief.\n\n### user\n\nIs it nobler?")
    counts = [usage(found, name) for name in ("one", "two", "three")]
    assert counts[0]["kept_tokens"] == 0
    for before, after in pairwise(counts):
        assert after["kept_tokens"] == before["prompt_tokens"]
    assert {count["answer_tokens"] for count in counts} <= set(range(9))
    assert {count["cost"] for count in counts} == {None}


@pytest.mark.usefixtures("fresh")
def test_an_image_stays_in_the_conversation(client: ComfyClient) -> None:
    prompt = shown(
        one=ask("What is it?", **local(VISION), **{"images.image0": ["image", 0]}),
        two=ask("And now?", **local(VISION), chat=["one", 2]),
    )
    prompt["image"] = node("EmptyImage", width=96, height=64, batch_size=1, color=0xFF0000)
    found = run(client, prompt)
    assert "[image 96x64]" in found["two_chat"]
    counts = [usage(found, name) for name in ("one", "two")]
    assert counts[1]["kept_tokens"] == counts[0]["prompt_tokens"] > 16


def test_local_answers_end_at_stop_strings_across_tokens(client: ComfyClient) -> None:
    whole = run(client, {"ask": ask("Speak.", max_tokens=24)})["ask"]
    stop = whole[5:12]
    written = stop.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    found = run(client, shown(ask=ask("Speak.", max_tokens=24, stop=f"never\n{written}")))
    assert found["ask"] == whole[: whole.index(stop)]
    assert usage(found, "ask")["answer_tokens"] < 24


def test_a_server_gets_the_conversation_and_its_tokens_are_counted(client: ComfyClient) -> None:
    first = stream("<think>", "hm", "</think>", "A ", "cat.")
    with OpenAIServer(first, stream("Grey.")) as server:
        there = remote(server)
        prices = {"price_prompt": 2.0, "price_answer": 10.0}
        prompt = shown(
            one=ask("What?", **there, system_prompt="Be brief.", **{"images.image0": ["image", 0]}),
            two=ask("Which colour?", **there, chat=["one", 2], seed=9, stop="END", **prices),
        )
        prompt["image"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0xFF)
        outputs = client.run(prompt)
    found = {name: output["text"][0] for name, output in outputs.items()}
    assert (found["one"], outputs["one"]["thinking"]) == ("A cat.", ["hm"])
    assert "> hm" in found["two_transcript"]
    sent = server.posts[1].json
    assert [message["role"] for message in sent["messages"]] == [
        *("system", "user", "assistant", "user")
    ]
    assert [part["type"] for part in sent["messages"][1]["content"]] == ["image_url", "text"]
    assert sent["messages"][2]["content"] == "A cat."  # what was thought is not sent again
    assert (sent["seed"], sent["stop"]) == (9, ["END"])
    assert usage(found, "two") == {
        "requests": 1,
        "prompt_tokens": 11,
        "answer_tokens": 7,
        "thinking_tokens": 3,
        "kept_tokens": 5,
        "cost": pytest.approx((11 * 2 + 7 * 10) / 1e6),
    }
    assert "cost 9.2e-05" in outputs["two"]["report"][0]


def test_a_server_that_does_not_count_is_not_guessed_for(client: ComfyClient) -> None:
    with OpenAIServer(hang("one E", "ND two")) as server:
        found = run(client, shown(ask=ask("?", **remote(server), stop="END", price_answer=1.0)))
        assert server.disconnected.wait(10)
    assert found["ask"] == "one "
    assert usage(found, "ask")["answer_tokens"] is None
    assert usage(found, "ask")["cost"] is None


def test_json_of_a_schema_is_asked_for_again(client: ComfyClient) -> None:
    refusal = answer(400, {"error": {"message": "response_format is unknown"}})
    wrong, right = stream('{"n": "x"}'), stream('```json\n{"n"', ": 2}\n```")
    with OpenAIServer(refusal, wrong, right) as server:
        found = run(client, shown(ask=ask("Count.", **remote(server), **AS_SCHEMA)))
        formats = [(p.json.get("response_format") or {}).get("type") for p in server.posts]
        assert formats == ["json_schema", "json_object", "json_object"]
        assert "$.n: 'x' is not of type" in server.posts[2].json["messages"][-1]["content"]
    assert found["ask"] == '{"n": 2}'
    assert found["ask_chat"].count("###") == 2  # the wrong answer is not part of it
    assert usage(found, "ask")["requests"] == 2  # the refused one had no tokens


def test_local_answers_that_are_no_json_are_an_error(client: ComfyClient) -> None:
    for form in ({"answer_format": "JSON", "answer_format.retries": 0}, AS_SCHEMA):
        with pytest.raises(PromptFailedError, match=r"is not JSON.*(line 1|cut off)"):
            client.run({"ask": ask("Speak.", **form)})


SOUND = AS_SCHEMA | {"answer_format.retries": 0}


@pytest.mark.parametrize(
    ("behaviour", "inputs", "message"),
    [
        (answer(401, {}), {}, "wants an API key"),
        (answer(400, {"error": "no"}), {}, "rejected the request"),
        (cut("Hel"), {}, "cut in the middle"),
        (hang(), {"engine.timeout": 1.0}, "sent nothing for 1 s"),
        (stream("no"), SOUND, r"line 1, column 1.*It was: no"),
        (stream('{"n": 1.5}'), SOUND, r"\$\.n: 1\.5 is not of type 'integer'"),
    ],
)
def test_errors_of_servers_are_raised(
    client: ComfyClient, behaviour: Any, inputs: dict[str, Any], message: str
) -> None:
    with OpenAIServer(behaviour) as server, pytest.raises(PromptFailedError, match=message):
        client.run({"ask": ask("Count.", **(remote(server) | inputs))})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prompt": " \n"}, "prompt is empty"),
        ({"answer_format": "YAML"}, "answer_format is 'YAML'; choose one of text, JSON"),
        (AS_SCHEMA | {"answer_format.schema": "{"}, r"answer_format\.schema is not JSON"),
        (AS_SCHEMA | {"answer_format.schema": "[]"}, "schema is not a JSON object"),
        (
            AS_SCHEMA | {"answer_format.schema": '{"items": 5}'},
            r"answer_format\.schema: \$\.items: 5 is not of type",
        ),
        ({"images.image0": ["image", 0]}, "takes no images"),
    ],
)
def test_inputs_of_no_use_are_errors(
    client: ComfyClient, inputs: dict[str, Any], message: str
) -> None:
    prompt = {"ask": ask("Hi", **inputs)} if "prompt" not in inputs else {"ask": ask(**inputs)}
    prompt["image"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    with pytest.raises(PromptFailedError, match=message) as failure:
        client.run(prompt)
    assert failure.value.details["node_type"] == "VivaceGenerateText"
    assert run(client, {"ask": ask("Still there?")})


def test_an_interrupt_ends_local_and_remote_answers(client: ComfyClient) -> None:
    run(client, {"ask": ask("warm")})
    with OpenAIServer(hang("Hel")) as server:
        for turn in (ask("long", max_tokens=3500), ask("Hi", **remote(server))):
            prompt_id = client.queue({"ask": turn})
            threading.Timer(1.5, client.post, ("/interrupt", {})).start()
            with pytest.raises(PromptFailedError) as failure:
                client.wait(prompt_id, 60)
            assert "exception_type" not in failure.value.details  # interrupted, not failed
            time.sleep(0.2)
        assert server.disconnected.wait(10)
    assert run(client, {"ask": ask("Afterwards?")})
