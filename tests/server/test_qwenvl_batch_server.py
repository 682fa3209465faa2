"""QwenVL Batch in a real ComfyUI: captions of folders, and of batches of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.graphs import node
from support.qwenvl_graphs import GREEDY, ask, figures, local, picture, run
from vivace.devkit.rig.client import ComfyClient, PromptFailedError


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
