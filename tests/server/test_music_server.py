"""Generate Music in a real ComfyUI, with small models."""

from __future__ import annotations

import io
import time
from typing import Any

import av
import numpy as np
import pytest
from support.graphs import free, node
from support.small_music import RATE
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError


def music(model: str = "small-mono", **inputs: Any) -> dict[str, Any]:
    values = {"model": model, "prompt": "warm piano", "duration": 0.2}
    return node("VivaceGenerateMusic", **(values | inputs))


def graph(model: str = "small-mono", **inputs: Any) -> Prompt:
    return {
        "music": music(model, **inputs),
        "heard": node("PreviewAudio", audio=["music", 0]),
        "report": node("PreviewAny", source=["music", 1]),
    }


def with_audio(name: str, prompt: Prompt, **inputs: Any) -> Prompt:
    values = {"seconds": 0.5, "channels": 1, "sample_rate": RATE}
    prompt["audio"] = node("VivaceTestAudio", **(values | inputs))
    prompt["music"]["inputs"][name] = ["audio", 0]
    return prompt


def heard(client: ComfyClient, outputs: dict[str, Any], name: str = "heard") -> list[Any]:
    """Rate and samples `[channels, samples]` of each file that PreviewAudio wrote."""
    found = []
    for item in outputs[name]["audio"]:
        with av.open(io.BytesIO(client.fetch(item))) as file:
            frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
            stream = file.streams.audio[0]
            samples = np.concatenate(frames, -1).reshape(-1, stream.channels).T
            found.append((stream.rate, samples.astype(np.float64) / np.iinfo(samples.dtype).max))
    return found


@pytest.fixture
def memory(client: ComfyClient) -> Any:
    def look() -> dict[str, list[str]]:
        return client.run({"memory": node("VivaceTestMemory")})["memory"]

    return look


def test_models_are_offered(client: ComfyClient) -> None:
    info = client.get_json("/object_info/VivaceGenerateMusic")["VivaceGenerateMusic"]
    kind, options = info["input"]["required"]["model"]
    choices = kind if isinstance(kind, list) else options["options"]
    assert sorted(choices) == ["half", "small-melody", "small-mono", "small-stereo"]
    vlm = str(client.get_json("/object_info/VivaceQwenVL"))
    assert "small-mono" not in vlm


@pytest.mark.parametrize(("model", "channels"), [("small-mono", 1), ("small-stereo", 2)])
def test_comfyui_plays_it(client: ComfyClient, model: str, channels: int) -> None:
    outputs = client.run(graph(model, duration=0.3333, variations=2, seed=channels))
    files = heard(client, outputs)
    assert [(rate, samples.shape) for rate, samples in files] == [
        (RATE, (channels, round(0.3333 * RATE)))
    ] * 2
    assert not np.array_equal(files[0][1], files[1][1])
    assert f"{model}, float32 on cpu" in outputs["report"]["text"][0]
    assert "audio support: torchaudio" in outputs["report"]["text"][0]


def test_it_goes_on_from_audio_at_another_rate(client: ComfyClient) -> None:
    prompt = with_audio("continue_from", graph(seed=5), sample_rate=44100, channels=2)
    prompt["given"] = node("PreviewAudio", audio=["audio", 0])
    outputs = client.run(prompt)
    ((rate, samples),) = heard(client, outputs)
    ((_, given),) = heard(client, outputs, "given")
    assert rate == 44100
    assert samples.shape == (1, 22050 + 8820)
    assert np.array_equal(samples[0, :22050], given[0])
    prompt["music"]["inputs"]["include_given"] = False
    prompt["music"]["inputs"]["sample_rate"] = 48000
    ((rate, samples),) = heard(client, client.run(prompt))
    assert (rate, samples.shape) == (48000, (1, 9600))


def test_a_melody_is_followed(client: ComfyClient) -> None:
    outputs = client.run(with_audio("melody", graph("small-melody", seed=6), sample_rate=16000))
    ((rate, samples),) = heard(client, outputs)
    assert (rate, samples.shape) == (RATE, (1, 1600))


def test_a_long_piece_has_windows(client: ComfyClient) -> None:
    outputs = client.run(graph(duration=2.5, overlap=0.4, seed=7))
    ((_, samples),) = heard(client, outputs)
    assert samples.shape == (1, 20000)
    assert "windows: 3;" in outputs["report"]["text"][0]


def test_nodes_share_one_copy_which_is_given_back(client: ComfyClient, memory: Any) -> None:
    free(client, unload_models=True, free_memory=True)
    prompt = graph(seed=8)
    prompt["more"] = music(seed=9, continue_from=["music", 0])
    prompt["more_heard"] = node("PreviewAudio", audio=["more", 0])
    client.run(prompt)
    seen = memory()
    assert seen["loaded"] == ["PooledModelPatcher"]
    assert seen["alive"] == ["MusicgenForConditionalGeneration"]
    first = heard(client, client.run(graph(seed=10)))
    client.run(graph(seed=11, prompt="other"))  # so that ComfyUI does not keep the output
    free(client, unload_models=True, free_memory=True)
    assert memory().get("alive", []) == []
    again = heard(client, client.run(graph(seed=10)))
    assert np.array_equal(first[0][1], again[0][1])
    free(client, unload_models=True, free_memory=True)
    client.run(graph(seed=12, keep_loaded=False))
    assert memory().get("alive", []) == []


def test_an_interrupt_ends_it(client: ComfyClient) -> None:
    client.run(graph(seed=13))
    prompt_id = client.queue(graph(duration=290.0, seed=14))
    time.sleep(2.0)
    client.post("/interrupt", {})
    with pytest.raises(PromptFailedError) as failure:
        client.wait(prompt_id, 30)
    assert "exception_type" not in failure.value.details  # interrupted, not failed
    assert heard(client, client.run(graph(seed=15)))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (graph(prompt=" "), "prompt is empty"),
        (graph(sample_rate=500), "sample_rate is 500"),
        (graph("half"), "half.*there are no weights"),
        (with_audio("melody", graph()), "small-mono takes no melody"),
        (with_audio("continue_from", graph(), seconds=0.0), "continue_from.*no samples"),
        (with_audio("continue_from", graph(), nan=True), "continue_from.*NaN"),
        (with_audio("melody", graph("small-melody"), channels=3), "melody.*3 channels"),
        (with_audio("continue_from", graph(), sample_rate=44101), "44101 Hz cannot be brought"),
    ],
)
def test_errors_are_raised_and_leave_the_server_fine(
    client: ComfyClient, prompt: Prompt, message: str
) -> None:
    with pytest.raises(PromptFailedError, match=message) as failure:
        client.run(prompt)
    assert failure.value.details["node_type"] == "VivaceGenerateMusic"
    assert heard(client, client.run(graph(prompt="still there")))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"duration": 0}, "smaller than min"),
        ({"duration": 301}, "bigger than max"),
        ({"model": "small-qwen3_vl"}, "not in list"),
        ({"model": "nothing"}, "not in list"),
        ({"dtype": "int8"}, "not in list"),
    ],
)
def test_what_the_schema_forbids_is_refused(
    client: ComfyClient, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptRejectedError) as refusal:
        client.run(graph(**inputs))
    assert message in refusal.value.messages("music")
