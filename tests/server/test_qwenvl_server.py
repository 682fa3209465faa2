"""The QwenVL nodes in a real ComfyUI, over HTTP, with small models of the real classes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.graphs import free, node
from support.openai_server import OpenAIServer, answer, hang, stream
from vivace.devkit.demo.workflow import Run, build
from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError

SMALL = "small-qwen3_vl"
OTHER = "small-qwen2_5_vl"
GREEDY = {"sampling": "greedy"}


def local(model: str = SMALL, **inputs: Any) -> dict[str, Any]:
    found = {"engine": "local", "engine.model": model, "engine.dtype": "float32"}
    return found | {f"engine.{name}": value for name, value in inputs.items()}


def remote(url: str, **inputs: Any) -> dict[str, Any]:
    found = {"engine": "server", "engine.address": url, "engine.server_model": "tiny"}
    return found | {f"engine.{name}": value for name, value in inputs.items()}


def picture(color: int, width: int = 96, height: int = 64) -> dict[str, Any]:
    return node("EmptyImage", width=width, height=height, batch_size=1, color=color)


def ask(prompt: str = "What is it?", **inputs: Any) -> dict[str, Any]:
    values = {"prompt": prompt, "max_tokens": 8, "preset": "None (my prompt only)", **GREEDY}
    return node("VivaceQwenVL", **(values | (inputs if "engine" in inputs else local() | inputs)))


def graph(color: int = 0xFF0000, **inputs: Any) -> Prompt:
    return {
        "image": picture(color),
        "ask": ask(**{"images.image0": ["image", 0]}, **inputs),
        "text": node("PreviewAny", source=["ask", 0]),
    }


def figures(report: str) -> tuple[int, int]:
    """Images from the cache, and encoded."""
    found = re.search(r"(\d+) from the cache, (\d+) encoded", report)
    assert found, report
    return int(found[1]), int(found[2])


def run(client: ComfyClient, prompt: Prompt, name: str = "ask") -> dict[str, Any]:
    return {key: value[0] for key, value in client.run(prompt)[name].items() if value}


@pytest.fixture
def memory(client: ComfyClient) -> Any:
    def look(**inputs: Any) -> dict[str, list[str]]:
        return client.run({"memory": node("VivaceTestMemory", **inputs)})["memory"]

    return look


@pytest.fixture
def fresh(client: ComfyClient) -> None:
    client.run({"cache": node("VivaceQwenVLCache", action="clear memory and disk")})


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


def test_nodes_share_one_copy_and_a_changed_setting_loads_another(
    client: ComfyClient, memory: Any
) -> None:
    free(client, unload_models=True)
    prompt = graph(prompt="one")
    prompt["more"] = ask("two", **{"images.image0": ["image", 0]})
    prompt["memory"] = node("VivaceTestMemory", after=["more", 0])
    client.run(prompt)
    seen = memory()
    assert seen["loaded"] == ["PooledModelPatcher"]
    assert len(seen["alive"]) == 1
    client.run(graph(prompt="three", **local(compile_vision="off")))
    assert len(memory()["alive"]) == 1
    client.run(graph(prompt="three", **local(attention="eager")))
    assert len(memory()["alive"]) == 2


def test_free_gives_the_memory_back_and_the_image_cache_stays(
    client: ComfyClient, memory: Any
) -> None:
    before = run(client, graph(prompt="before"))["text"]
    assert memory()["alive"]
    free(client, unload_models=True, free_memory=True)
    seen = memory()
    assert seen.get("alive", []) == []
    assert seen.get("loaded", []) == []
    after = run(client, graph(prompt="before"))
    assert after["text"] == before
    assert figures(after["report"]) == (1, 0)


@pytest.fixture
def small_device(client: ComfyClient, models: Path) -> Iterator[None]:
    """A device that the demo's model and a small QwenVL do not fit on together."""
    size = (models / "diffusion_models" / MODEL_FILE).stat().st_size
    free(client, unload_models=True, free_memory=True)
    client.run({"device": node("VivaceTestSmallDevice", nbytes=int(1.1 * size) + 2**20)})
    yield
    free(client, unload_models=True, free_memory=True)
    client.run({"device": node("VivaceTestSmallDevice", nbytes=0)})


@pytest.mark.usefixtures("small_device")
def test_a_model_that_is_loaded_evicts_it_and_it_comes_back(
    client: ComfyClient, memory: Any
) -> None:
    text = run(client, graph(prompt="evict"))["text"]
    assert memory()["loaded"] == ["PooledModelPatcher"]
    sampled = build(Run("evicting", []), MODEL_FILE, None, 3584, [])
    client.run(sampled)
    # Older versions let go of the sampled model when a prompt without it runs, as this look does.
    assert "PooledModelPatcher" not in memory()["loaded"]
    again = graph(prompt="evict")
    again["ask"]["inputs"]["seed"] = 1  # so that the node runs again
    assert run(client, again)["text"] == text
    assert "PooledModelPatcher" in memory()["loaded"]


@pytest.mark.parametrize("quantization", ["8-bit", "4-bit"])
def test_a_quantized_model_is_dropped_and_built_again(
    client: ComfyClient, memory: Any, quantization: str
) -> None:
    free(client, unload_models=True)
    asked = graph(prompt="quantized", **local(quantization=quantization))
    text = run(client, asked)["text"]
    assert len(memory()["alive"]) == 1
    free(client, unload_models=True)
    assert memory().get("alive", []) == []
    asked["ask"]["inputs"]["seed"] = 1
    assert run(client, asked)["text"] == text


def test_keep_loaded_off_gives_it_back_after_the_run(client: ComfyClient, memory: Any) -> None:
    free(client, unload_models=True)
    run(client, graph(prompt="short", **local(keep_loaded=False)))
    assert memory().get("alive", []) == []


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


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, color in enumerate(("red", "green", "blue", "red")):
        Image.new("RGB", (96, 64), color).save(tmp_path / f"{number}.png")
    return tmp_path


def batch(folder: Path | None = None, **inputs: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"prompt": "Describe.", "max_tokens": 6, "batch_size": 3, **GREEDY}
    values |= {"preset": "None (my prompt only)"} | local()
    values |= {"folder": str(folder)} if folder else {}
    return node("VivaceQwenVLBatch", **(values | inputs))


@pytest.mark.usefixtures("fresh")
def test_a_folder_is_captioned_and_goes_on_where_it_stopped(
    client: ComfyClient, pictures: Path
) -> None:
    (pictures / "2.txt").write_text("mine\n", encoding="utf-8")
    found = run(client, {"ask": batch(pictures)})
    assert "3 written, 1 there already, 0 failed" in found["report"]
    assert (pictures / "2.txt").read_text(encoding="utf-8") == "mine\n"
    texts = [(pictures / f"{number}.txt").read_text(encoding="utf-8") for number in (0, 1, 3)]
    assert texts[0] == texts[2]
    # Two of the three are equal.
    assert figures(found["report"])[1] == 2
    again = run(client, {"ask": batch(pictures)})
    assert "0 written, 4 there already" in again["report"]
    over = run(client, {"ask": batch(pictures, existing="overwrite")})
    assert "4 written" in over["report"]
    assert figures(over["report"])[1] == 1  # blue was not encoded before
    assert (pictures / "2.txt").read_text(encoding="utf-8") != "mine\n"


def test_a_broken_file_does_not_stop_the_others(client: ComfyClient, pictures: Path) -> None:
    (pictures / "1.png").write_bytes(b"no image")
    Image.new("RGB", (2000, 2)).save(pictures / "2.png")
    found = run(client, {"ask": batch(pictures)})
    assert "2 written, 0 there already, 2 failed" in found["report"]
    assert "1.png" in found["report"]
    assert not (pictures / "1.txt").exists()


def test_a_batch_of_images_is_a_list_of_captions(client: ComfyClient) -> None:
    prompt = {
        "images": node("EmptyImage", width=96, height=64, batch_size=5, color=0x335577),
        "ask": batch(images=["images", 0]),
        "each": node("PreviewAny", source=["ask", 0]),
    }
    outputs = client.run(prompt)
    assert len(outputs["each"]["text"]) == 5
    assert len(set(outputs["each"]["text"])) == 1
    assert "5 written" in outputs["ask"]["report"][0]
    single = {"image": picture(0x335577), "ask": ask("Describe.", max_tokens=6)}
    single["ask"]["inputs"]["images.image0"] = ["image", 0]
    assert run(client, single)["text"] == outputs["each"]["text"][0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "Connect images, or name a folder"),
        ({"folder": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"folder": "relative"}, "relative"),
    ],
)
def test_a_batch_of_nothing_is_an_error(
    client: ComfyClient, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptFailedError, match=message):
        client.run({"ask": batch(**inputs)})


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
