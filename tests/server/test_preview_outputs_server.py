"""Preview Outputs in a real ComfyUI, over HTTP: each kind of value, lists, what cannot be shown."""

from __future__ import annotations

import json
import os
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from support.graphs import KOHYA, PEFT, node, row
from vivace.devkit.doubles.demo_models import MODEL_FILE, VAE_FILE
from vivace.devkit.rig.client import ComfyClient, Prompt

NODE = "VivacePreviewOutputs"
OFF = {"uniform_within": -1.0, "white_above": -1.0, "transparent_above": -1.0}


def shown(client: ComfyClient, sources: Prompt, *links: Any, **more: Any) -> dict[str, Any]:
    """What a Preview Outputs of these links puts out, with its output `summary` as `text`."""
    values = {f"values.value{place}": link for place, link in enumerate(links)}
    prompt: Prompt = {**sources, "show": node(NODE, **values, **more)}
    prompt["summary"] = node("PreviewAny", source=["show", 0])
    outputs = client.run(prompt)
    return {**outputs["show"], "text": outputs["summary"]["text"][0]}


def figures(value: dict[str, Any]) -> dict[str, str]:
    return dict(value["figures"])


def blank(color: str = "#ff0000", **more: Any) -> dict[str, Any]:
    return node("VivaceBlankImage", width=16, height=8, color=color, **{"batch_size": 1, **more})


def test_images_and_masks(client: ComfyClient) -> None:
    outputs = shown(client, {"a": blank("#ff000080", batch_size=2)}, ["a", 0], ["a", 1])
    image, mask = outputs["values"]
    assert image["title"] == "Image: 2 images of 16 x 8 pixels, RGB"
    assert mask["title"] == "Mask: 2 masks of 16 x 8 pixels"
    assert image["label"] == "value0: VivaceBlankImage"
    assert outputs["images"] == image["files"] + mask["files"]
    assert [len(value["files"]) for value in (image, mask)] == [2, 2]
    picture, grey = (Image.open(BytesIO(client.fetch(v["files"][0]))) for v in (image, mask))
    assert (picture.mode, picture.size, picture.getpixel((3, 3))) == ("RGB", (16, 8), (255, 0, 0))
    assert (grey.mode, grey.getpixel((3, 3))) == ("L", round((1 - 128 / 255) * 255))
    assert json.loads(picture.info["prompt"])["show"]["class_type"] == NODE


@pytest.mark.parametrize(("channels", "played"), [(1, 1), (2, 2), (6, 1)])
def test_sounds_are_played_and_drawn(client: ComfyClient, channels: int, played: int) -> None:
    source = node("VivaceTestAudio", seconds=0.5, channels=channels, sample_rate=8000)
    outputs = shown(client, {"a": source}, ["a", 0])
    (value,) = outputs["values"]
    assert (value["kind"], value["problem"], outputs["images"]) == ("audio", "", [])
    assert outputs["audio"] == value["files"]
    with av.open(BytesIO(client.fetch(value["files"][0]))) as file:
        stream = file.streams.audio[0]
        frames = [frame.to_ndarray() for frame in file.decode(stream)]
        assert (stream.codec_context.sample_rate, stream.channels) == (8000, played)
    assert (
        sum(part.shape[-1] for part in frames) // (played if frames[0].shape[0] == 1 else 1) == 4000
    )
    (wave,) = value["waveforms"]
    assert len(wave) == 300
    assert np.allclose([min(low for low, _ in wave), max(high for _, high in wave)], [-0.4, 0.4])
    assert figures(value)["peak"] == "0.4000 (-8.0 dB)"


def test_a_sound_that_cannot_be_played_is_described(client: ComfyClient) -> None:
    silent = node("VivaceTestAudio", seconds=0.0, channels=1, sample_rate=8000)
    (value,) = shown(client, {"a": silent}, ["a", 0])["values"]
    assert value["title"] == "Audio: 0.00 s at 8000 Hz, mono"
    assert value["files"] == []
    assert value["problem"].startswith("It cannot be shown:")
    nan = node("VivaceTestAudio", seconds=0.1, channels=1, sample_rate=8000, nan=True)
    (value,) = shown(client, {"a": nan}, ["a", 0])["values"]
    assert (len(value["files"]), value["problem"]) == (1, "")
    assert figures(value)["not a number"] == "1 of 800"


def test_videos_are_played(client: ComfyClient) -> None:
    sources: Prompt = {
        "a": node("VivaceBlankImage", width=64, height=32, batch_size=12, color="teal"),
        "video": node("CreateVideo", images=["a", 0], fps=24.0),
    }
    outputs = shown(client, sources, ["video", 0])
    (value,) = outputs["values"]
    assert value["title"] == "Video: 0.50 s of 64 x 32 pixels"
    assert (value["media"], figures(value)["frames"]) == ("video", "12")
    assert outputs["images"] == value["files"]
    with av.open(BytesIO(client.fetch(value["files"][0]))) as file:
        assert sum(1 for _ in file.decode(video=0)) == 12


def test_latents_conditioning_texts_and_numbers(client: ComfyClient) -> None:
    sources: Prompt = {
        "latent": node("EmptyLatentImage", width=64, height=32, batch_size=2),
        "words": node("VivaceTestConditioning", seed=3, tokens=12, width=3584),
        "number": node("PrimitiveFloat", value=0.25),
    }
    links = (["latent", 0], ["words", 0], ["number", 0], "two words", '{"a": [1, 2]}', True)
    outputs = shown(client, sources, *links)
    assert [value["title"] for value in outputs["values"]] == [
        "Latent: 2 samples of 8 x 4, 4 channels",
        "Conditioning: 1 entry",
        "Number: 0.25",
        "Text: 9 characters, 2 words, 1 line",
        "Text: 13 characters, 3 words, 1 line, JSON",
        "Boolean: true",
    ]
    latent, words, _, text, data, _ = outputs["values"]
    assert figures(latent)["standard deviation"] == "0"
    assert figures(words)["entry 0"] == "float32 [1, 12, 3584]"
    assert text["text"] == "two words"
    assert data["text"].splitlines()[1] == '  "a": ['
    assert text["label"] == "value3"
    assert "### value2: PrimitiveFloat\n\nNumber: 0.25" in outputs["text"]
    assert "| standard deviation | 0 |" in outputs["text"]


def test_the_summary_as_json(client: ComfyClient) -> None:
    outputs = shown(client, {"a": blank()}, ["a", 0], "hello", summary_format="JSON")
    image, text = json.loads(outputs["text"])
    assert (image["kind"], dict(image["figures"])["maximum"]) == ("image", "1")
    assert (text["label"], text["text"]) == ("value1", "hello")


def test_lists_are_shown_as_lists(client: ComfyClient) -> None:
    sources: Prompt = {
        "a": blank("red"),
        "b": blank("black"),
        "batch": node("ImageBatch", image1=["a", 0], image2=["b", 0]),
        "empty": node("VivaceImageIsEmpty", image=["batch", 0], black_below=0.02, **OFF),
    }
    outputs = shown(client, sources, ["empty", 1], ["a", 0])
    assert [(value["label"], value["title"]) for value in outputs["values"][:2]] == [
        ("value0 [0]: VivaceImageIsEmpty", "Boolean: false"),
        ("value0 [1]: VivaceImageIsEmpty", "Boolean: true"),
    ]
    assert outputs["values"][2]["kind"] == "image"


def test_models_tell_their_loras(client: ComfyClient) -> None:
    rows = [row(PEFT, 0.8), row(KOHYA, -0.5), row(PEFT, 1.0, on=False)]
    sources: Prompt = {
        "model": node("UNETLoader", unet_name=MODEL_FILE, weight_dtype="default"),
        "stack": node("VivaceLoraStack", model=["model", 0], rows=rows),
        "more": node("LoraLoaderModelOnly", model=["stack", 0], lora_name=PEFT, strength_model=0.3),
        "vae": node("VAELoader", vae_name=VAE_FILE),
        "clip": node("VivaceTestClip"),
    }
    outputs = shown(
        client, sources, *([name, 0] for name in ("model", "stack", "more", "vae", "clip"))
    )
    plain, stacked, more, vae, clip = outputs["values"]
    assert plain["title"].startswith("Model: QwenImage, ")
    assert ["LoRA", "none"] in plain["figures"]
    loras = [figure for label, figure in stacked["figures"] if label == "LoRA"]
    assert [text.rpartition(",")[0] for text in loras] == [
        f"{PEFT}, strength 0.8",
        f"{KOHYA}, strength -0.5",
    ]
    assert "ComfyUI's patches" not in figures(stacked)
    assert [figure for label, figure in more["figures"] if label == "LoRA"] == loras
    assert figures(more)["ComfyUI's patches"].startswith("on ")
    assert figures(plain)["network"] == "QwenImageTransformer2DModel"
    assert vae["title"].startswith("VAE: ")
    assert clip["title"].startswith("Text encoder: SmallTextEncoder")


def test_a_key_is_never_shown(client: ComfyClient, server: Any) -> None:
    key = "sk-canary-preview-outputs-1234"
    secrets = server.work / "user" / "__vivace" / "secrets.env"
    secrets.parent.mkdir(parents=True, exist_ok=True)
    secrets.write_text(f"preview={key}\n")
    os.chmod(secrets, 0o600)  # noqa: PTH101 - as a user would
    try:
        source = node("VivaceApiKey", source="secrets file", key_name="preview")
        outputs = shown(client, {"key": source}, ["key", 0])
    finally:
        secrets.unlink()
    assert outputs["values"][0]["title"] == "Object: <Secret 'preview'>"
    assert key not in json.dumps(outputs)
    assert key not in json.dumps(client.get_json("/history"))


def test_nothing_connected_and_nothing_given(client: ComfyClient) -> None:
    assert shown(client, {})["values"] == []
    outputs = shown(client, {}, None)
    assert [value["title"] for value in outputs["values"]] in ([], ["Nothing (None)"])


def test_many_images_are_shown_in_part(client: ComfyClient) -> None:
    (value,) = shown(client, {"a": blank(batch_size=103)}, ["a", 0])["values"]
    assert len(value["files"]) == 100
    assert value["problem"] == "The first 100 of 103 are shown."
