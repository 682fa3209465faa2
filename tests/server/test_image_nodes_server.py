"""Blank Image and Image Is Empty in a real ComfyUI, over HTTP."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image
from support.graphs import node
from vivace.devkit.rig.client import ComfyClient, PromptRejectedError


def test_blank_image_and_is_empty_run(client: ComfyClient) -> None:
    outputs = client.run(
        {
            "blank": node("VivaceBlankImage", width=32, height=16, batch_size=2, color="#ff000080"),
            "empty": node(
                "VivaceImageIsEmpty",
                image=["blank", 0],
                mask=["blank", 1],
                uniform_within=0.01,
                black_below=-1.0,
                white_above=-1.0,
                transparent_above=0.4,
            ),
            "shown": node("PreviewAny", source=["empty", 2]),
            "verdict": node("PreviewAny", source=["empty", 0]),
            "image": node("PreviewImage", images=["blank", 0]),
        }
    )
    assert outputs["verdict"]["text"][0].lower() == "true"
    details = outputs["shown"]["text"][0].splitlines()
    assert len(details) == 2
    assert details[0].startswith("image 0: uniform + transparent")
    picture = Image.open(BytesIO(client.fetch(outputs["image"]["images"][0])))
    assert picture.size == (32, 16)
    assert picture.getpixel((5, 5)) == (255, 0, 0)


def test_is_empty_without_an_image(client: ComfyClient) -> None:
    limits = dict.fromkeys(
        ("uniform_within", "black_below", "white_above", "transparent_above"), -1.0
    )
    outputs = client.run(
        {
            "empty": node("VivaceImageIsEmpty", **limits),
            "shown": node("PreviewAny", source=["empty", 2]),
        }
    )
    assert outputs["shown"]["text"] == ["image 0: no image"]


def test_a_bad_colour_is_refused_when_queueing(client: ComfyClient) -> None:
    prompt = {
        "stack": node("VivaceBlankImage", width=8, height=8, batch_size=1, color="blurple"),
        "image": node("PreviewImage", images=["stack", 0]),
    }
    with pytest.raises(PromptRejectedError) as refusal:
        client.queue(prompt)
    assert "'blurple' is not a colour" in refusal.value.messages("stack")
