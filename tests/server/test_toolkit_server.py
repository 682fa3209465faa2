"""The small nodes in a real ComfyUI, over HTTP."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.graphs import node
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError


def picture(client: ComfyClient, saved: dict[str, str]) -> Image.Image:
    return Image.open(BytesIO(client.fetch(saved)))


def blank(color: str, **more: Any) -> dict[str, Any]:
    return node("VivaceBlankImage", width=16, height=8, batch_size=1, color=color, **more)


@pytest.mark.parametrize(
    ("pattern", "left", "right"),
    [
        ({}, (0, 0, 0), (0, 0, 0)),
        ({"pattern": "solid"}, (0, 0, 0), (0, 0, 0)),
        ({"pattern": "gradient"}, (0, 0, 0), (255, 255, 255)),
        ({"pattern": "gradient", "pattern.second_color": "red"}, (0, 0, 0), (255, 0, 0)),
        ({"pattern": "gradient", "pattern.direction": "down"}, (0, 0, 0), (0, 0, 0)),
        ({"pattern": "checker", "pattern.cell": 15}, (0, 0, 0), (255, 255, 255)),
    ],
)
def test_blank_images_have_patterns(
    client: ComfyClient, pattern: dict[str, Any], left: Any, right: Any
) -> None:
    prompt = {"blank": blank("black", **pattern)}
    prompt["image"] = node("PreviewImage", images=["blank", 0])
    image = picture(client, client.run(prompt)["image"]["images"][0])
    assert (image.getpixel((0, 0)), image.getpixel((15, 0))) == (left, right)


def test_noise_goes_by_its_seed(client: ComfyClient) -> None:
    prompt: Prompt = {}
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        options = {"pattern": "noise", "pattern.seed": seed, "pattern.colored": True}
        prompt[f"blank {name}"] = blank("black", **options)
        prompt[name] = node("PreviewImage", images=[f"blank {name}", 0])
    outputs = client.run(prompt)
    first, other, again = (picture(client, outputs[n]["images"][0]).tobytes() for n in "abc")
    assert first == again != other
    assert len(set(first)) > 100


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ({"pattern": "stripes"}, "pattern is 'stripes'; choose one of solid, gradient"),
        ({"pattern": "noise", "pattern.second_color": "blurple"}, "'blurple' is not a colour"),
    ],
)
def test_bad_patterns_stop_the_run(
    client: ComfyClient, pattern: dict[str, Any], words: str
) -> None:
    prompt = {"blank": blank("black", **pattern)}
    prompt["image"] = node("PreviewImage", images=["blank", 0])
    with pytest.raises(PromptFailedError, match=words):
        client.run(prompt)


def preview(name: str, condition: Any, replacement: bool = True, **more: Any) -> Prompt:
    """Two counted images into a Preview If, and what it passes on."""
    prompt = {
        "red": blank("red"),
        "blue": blank("blue"),
        "image": node("VivaceTestCount", image=["red", 0], name=f"{name} image"),
        "other": node("VivaceTestCount", image=["blue", 0], name=f"{name} other"),
        "if": node(
            "VivacePreviewIf",
            condition=condition,
            image=["image", 0],
            **{"action": "preview", "filename_prefix": name, **more},
        ),
        "passed": node("PreviewImage", images=["if", 0]),
    }
    if replacement:
        prompt["if"]["inputs"]["replacement"] = ["other", 0]
    return prompt


RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("condition", "replacement", "otherwise", "ran", "passed"),
    [
        (True, True, "pass on", {"image"}, RED),
        (True, False, "pass on", {"image"}, RED),
        (True, True, "stop", {"image"}, RED),
        (False, True, "pass on", {"other"}, BLUE),
        (False, False, "pass on", {"image"}, RED),
        (False, True, "stop", set(), None),
        (False, False, "stop", set(), None),
    ],
)
def test_only_the_branch_that_is_taken_is_computed(
    client: ComfyClient,
    condition: bool,
    replacement: bool,
    otherwise: str,
    ran: set[str],
    passed: Any,
) -> None:
    name = f"{condition}-{replacement}-{otherwise}"
    outputs = client.run(preview(name, condition, replacement, otherwise=otherwise))
    assert {key for key in ("image", "other") if key in outputs} == ran
    assert all(outputs[key]["runs"] == [1] for key in ran)
    assert len(outputs["if"]["images"]) == condition
    if passed is None:
        assert "passed" not in outputs
    else:
        assert picture(client, outputs["passed"]["images"][0]).getpixel((3, 3)) == passed


def test_the_condition_may_be_computed(client: ComfyClient) -> None:
    prompt = preview("computed", ["empty", 0])
    prompt["empty"] = node("VivaceImageIsEmpty", image=["blue", 0], uniform_within=0.01)
    prompt["empty"]["inputs"] |= {"black_below": -1, "white_above": -1, "transparent_above": -1}
    outputs = client.run(prompt)
    assert len(outputs["if"]["images"]) == 1
    assert "other" not in outputs


def test_a_list_of_conditions_shows_each_image_that_is_meant(client: ComfyClient) -> None:
    prompt = preview("list", ["empty", 1], replacement=False)
    prompt["noise"] = blank("black", pattern="noise")
    prompt["batch"] = node("ImageBatch", image1=["red", 0], image2=["noise", 0])
    prompt["empty"] = node("VivaceImageIsEmpty", image=["batch", 0])
    prompt["empty"]["inputs"] |= dict.fromkeys(
        ("black_below", "white_above", "transparent_above"), -1.0
    ) | {"uniform_within": 0.01}
    assert len(client.run(prompt)["if"]["images"]) == 1


@pytest.mark.parametrize("action", ["preview", "save", "preview and save"])
def test_images_are_shown_and_saved_with_the_workflow(
    client: ComfyClient, server: Any, action: str
) -> None:
    folder = action.replace(" ", "-")
    prompt = preview("x", True, action=action, filename_prefix=f"{folder}/%width%x%height%")
    shown = client.run(prompt)["if"]
    output = server.work / "output" / folder
    files = sorted(path.name for path in output.glob("*")) if output.exists() else []
    if action == "preview":
        assert files == []
        assert (shown["images"][0]["type"], shown["saved"]) == ("temp", [])
    else:
        assert files == ["16x8_00001_.png"]
        place = {"filename": "16x8_00001_.png", "subfolder": folder, "type": "output"}
        expected = ([place], []) if action == "preview and save" else ([], [place])
        assert (shown["images"], shown["saved"]) == expected
    image = picture(client, (shown["images"] + shown["saved"])[0])
    assert image.getpixel((3, 3)) == RED
    assert json.loads(image.info["prompt"])["if"] == prompt["if"]


def test_no_file_is_written_over(client: ComfyClient, server: Any) -> None:
    """ComfyUI's own numbering does not see files whose names have the batch number."""
    names = []
    for color in ("red", "blue"):
        prompt = preview("x", True, action="save", filename_prefix="again/%batch_num%-of")
        prompt["red"] = blank(color)
        names += [saved["filename"] for saved in client.run(prompt)["if"]["saved"]]
    assert names == ["0-of_00001_.png", "0-of_00002_.png"]
    assert len(list((server.work / "output" / "again").iterdir())) == 2


@pytest.mark.parametrize("prefix", ["../../outside", "/etc/x", "a\0b", "x" * 300])
def test_prefixes_that_cannot_be_used_are_refused(
    client: ComfyClient, server: Any, prefix: str
) -> None:
    with pytest.raises(PromptFailedError, match="filename_prefix"):
        client.run(preview("x", True, action="save", filename_prefix=prefix))
    assert not list(Path(server.work).parent.rglob("outside*"))


def test_an_unknown_action_is_refused(client: ComfyClient) -> None:
    with pytest.raises(PromptRejectedError, match="not in"):
        client.queue(preview("x", True, action="print"))
