"""The QwenVL nodes in a real ComfyUI, over HTTP, with small models of the real classes."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest
from support.graphs import node
from support.openai_server import OpenAIServer, answer, hang, stream
from support.qwenvl_graphs import ask, figures, graph, local, picture, run
from vivace.devkit.rig.client import ComfyClient, PromptFailedError, PromptRejectedError

OTHER = "small-qwen2_5_vl"


def remote(url: str, **inputs: Any) -> dict[str, Any]:
    found = {"engine": "server", "engine.address": url, "engine.server_model": "tiny"}
    return found | {f"engine.{name}": value for name, value in inputs.items()}


@pytest.mark.usefixtures("fresh")
def test_an_image_is_encoded_once_whatever_is_asked(client: ComfyClient) -> None:
    first = run(client, graph())
    assert first["text"]
    assert figures(first["report"]) == (0, 1)
    assert figures(run(client, graph(prompt="And now?"))["report"]) == (1, 0)
    assert figures(run(client, graph(prompt="And now?", max_tokens=3))["report"]) == (1, 0)
    assert figures(run(client, graph(0x00FF00))["report"]) == (0, 1)
    assert figures(run(client, graph(image_quality="ultra", prompt="x"))["report"])[0] in (0, 1)
    without = run(client, graph(enable_image_cache=False, prompt="Fresh?"))
    assert figures(without["report"]) == (0, 1)
    again = run(client, graph(prompt="Fresh?"))
    assert again["text"] == without["text"]
    assert "kept from before" in again["report"]


@pytest.mark.usefixtures("fresh")
def test_several_images_a_batch_and_a_video(client: ComfyClient) -> None:
    prompt = graph()
    prompt["second"] = node("EmptyImage", width=64, height=96, batch_size=2, color=0x123456)
    prompt["ask"]["inputs"]["images.image1"] = ["second", 0]
    prompt["ask"]["inputs"]["video"] = ["second", 0]
    report = run(client, prompt)["report"]
    # Red, and the two equal ones of the batch; the video is another grid.
    assert "2 from the cache" not in report
    assert "3 encoded, 1 repeated" in report
    assert "2 of 2 frames, at 0.00, 0.04 seconds" in report


def test_it_is_a_plain_language_model_too(client: ComfyClient) -> None:
    prompt = {"ask": ask("Tell me.")}
    assert run(client, prompt)["text"]


def test_an_interrupt_ends_it_within_a_token(client: ComfyClient) -> None:
    run(client, graph(prompt="warm"))
    # Suppressing the end is not needed: small random models do not find it in so many tokens.
    prompt_id = client.queue(graph(prompt="long", max_tokens=4000))
    time.sleep(1.0)
    client.post("/interrupt", {})
    with pytest.raises(PromptFailedError) as failure:
        client.wait(prompt_id, 30)
    assert "exception_type" not in failure.value.details  # interrupted, not failed
    assert run(client, graph(prompt="afterwards"))["text"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prompt": "", "preset": "None (my prompt only)"}, "prompt"),
        (local(attention="flash_attention_2"), "flash_attn"),
        ({"engine": "cloud"}, "engine is 'cloud'; choose one of local, server"),
        (local() | {"sampling": "greddy"}, "sampling is 'greddy'"),
        (local("unfinished"), "unfinished.*model.safetensors"),
        (remote("nowhere"), "http"),
        (remote("http://127.0.0.1:9"), "127.0.0.1:9"),
        (remote("http://127.0.0.1:9", api_key_variable="HOME"), "_API_KEY"),
    ],
)
def test_errors_are_raised_and_leave_the_server_fine(
    client: ComfyClient, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptFailedError, match=message) as failure:
        client.run(graph(**inputs))
    assert failure.value.details["node_type"] == "VivaceQwenVL"
    assert run(client, graph(prompt="still there"))["text"]


def test_a_prompt_without_an_engine_says_so(client: ComfyClient) -> None:
    prompt = graph()
    del prompt["ask"]["inputs"]["engine"]
    with pytest.raises((PromptFailedError, PromptRejectedError), match="engine"):
        client.run(prompt)


def test_a_model_that_is_not_there_is_refused(client: ComfyClient) -> None:
    with pytest.raises(PromptRejectedError) as refusal:
        client.run(graph(**local("nothing")))
    assert "nothing" in refusal.value.messages("ask")


def test_an_image_of_no_use_is_an_error(client: ComfyClient) -> None:
    prompt = graph()
    prompt["image"] = picture(0, width=4096, height=1)
    with pytest.raises(PromptFailedError, match="Image 1"):
        client.run(prompt)


def test_a_server_answers_in_its_place(client: ComfyClient) -> None:
    thinking = stream("<think>", "hm", "</think>", "Hello", " there")
    with OpenAIServer(thinking) as server:
        prompt = graph(**remote(server.url))
        prompt["second"] = picture(0xFF0000)
        prompt["ask"]["inputs"]["images.image1"] = ["second", 0]
        found = run(client, prompt)
    assert (found["text"], found["thinking"]) == ("Hello there", "hm")
    sent = server.requests[0].json
    assert sent["model"] == "tiny"
    parts = sent["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    assert "1 sent for 1 requests" in found["report"]  # the two are equal


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [(answer(401, {"error": {"message": "who?"}}), "401"), (answer(200, "garbage"), "tiny|JSON")],
)
def test_a_server_that_fails_is_an_error(client: ComfyClient, behaviour: Any, message: str) -> None:
    with OpenAIServer(behaviour) as server, pytest.raises(PromptFailedError, match=message):
        client.run(graph(**remote(server.url)))


def test_a_server_that_hangs_can_be_interrupted(client: ComfyClient) -> None:
    with OpenAIServer(hang("Hel")) as server:
        prompt_id = client.queue(graph(**remote(server.url)))
        threading.Timer(1.5, client.post, ("/interrupt", {})).start()
        with pytest.raises(PromptFailedError) as failure:
            client.wait(prompt_id, 30)
        assert "exception_type" not in failure.value.details
        assert server.disconnected.wait(10)


def test_the_cache_node_shows_and_clears(client: ComfyClient) -> None:
    def cache(**inputs: Any) -> str:
        prompt = {"cache": node("VivaceQwenVLCache", **{"action": "show"} | inputs)}
        return client.run(prompt)["cache"]["text"][0]

    run(client, graph(0x445566, prompt="cached"))
    before = re.search(r"images kept \| (\d+)", cache())
    assert before
    assert int(before[1]) > 0
    shown = cache(**{"size": "change", "size.memory_mb": 16, "size.disk_mb": 64})
    assert "of 16 MB" in shown
    assert "on disk | 0" in shown
    run(client, graph(0x778899, prompt="cached"))
    assert "on disk | 1" in cache()
    assert "images kept | 0" in cache(action="clear memory")
    assert figures(run(client, graph(0x778899, prompt="from disk"))["report"]) == (1, 0)
    assert "1 of them on disk" in cache()
    assert "on disk | 0" in cache(action="clear memory and disk")
    assert "on disk |" not in cache(**{"size": "change"}).replace("of them on disk", "")


def test_a_download_without_a_network_says_so(client: ComfyClient) -> None:
    for repository, message in (("nonsense", "owner/name"), ("Qwen/None", "Qwen/None")):
        with pytest.raises(PromptFailedError, match=message):
            client.run({"get": node("VivaceQwenVLDownload", repository=repository)})
