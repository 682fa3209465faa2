"""The example workflows in the real editor: they open, are laid out, run, and have thumbnails."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page
from support.editor import load, prompt_of, shoot
from support.graphs import PEFT, row
from support.z_image_file import Z_IMAGE
from vivace.devkit.doubles.demo_models import MODEL_FILE, VAE_FILE
from vivace.devkit.doubles.svdquant_files import QUANTIZED
from vivace.devkit.pictures.image_files import THUMBNAIL_BYTES, THUMBNAIL_WIDTH
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import PACK_NAME
from vivace.devkit.rig.server import ComfyServer

EXAMPLES = sorted((Path(__file__).parents[2] / "example_workflows").glob("*.json"))
SWEEP = next(path for path in EXAMPLES if path.stem == "lora_strength_sweep")
NOTE = "MarkdownNote"  # known to the editor only
# The rectangles of all nodes, with their titles: [id, left, top, right, bottom].
RECTANGLES = """() => app.graph.nodes.map(({ id, pos: [x, y], size: [width, height] }) =>
    [id, x, y - LiteGraph.NODE_TITLE_HEIGHT, x + width, y + height])"""
WIDTHS = {"qwen": 3584, "z": 2560}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_workflows_open_and_run(
    editor: Page, client: ComfyClient, svdquant_models: Path, pictures: Path, path: Path
) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    types = {node["type"] for node in workflow["nodes"]} - {NOTE}
    known = set(client.get_json("/object_info"))
    if path == SWEEP and "TextOverlay" not in known:
        pytest.skip("this older ComfyUI cannot write on images")
    load(editor, workflow)
    shoot(editor, f"example-{path.stem}")
    assert overlaps(editor) == []
    foreign = {name for name in types if name.startswith("Nunchaku")}
    assert types - known == foreign
    if foreign:  # the loader of a pack that needs CUDA
        return
    prompt = {name: dict(item) for name, item in prompt_of(editor).items()}
    if path.stem != "z_image_svdquant" and path != SWEEP:  # which has a test of its own
        outputs = client.run(with_small_models(prompt, pictures))
        asked = [name for name, item in prompt.items() if item["class_type"] == "VivaceQwenVL"]
        assert all(outputs[name]["text"] for name in asked)
        stacks = [name for name, item in prompt.items() if item["class_type"] == "VivaceLoraStack"]
        lines = [outputs[name]["text"][0].split("\n")[0] for name in stacks]
        assert all("LoRA" in line for line in lines)
        if path.stem == "qwen_image_lora_stack":
            assert lines == ["1 LoRA, 4 modules"]
        shown = [values for item in outputs.values() if (values := item.get("values"))]
        kinds = [[value["kind"] for value in values] for values in shown]
        tour = ["image", "audio", "text", "text", "text", "mask"]
        assert kinds == ([tour] if path.stem == "toolkit_tour" else [])


def test_the_sweep_gives_one_labelled_picture(
    editor: Page, client: ComfyClient, models: Path, pictures: Path
) -> None:
    if "TextOverlay" not in client.get_json("/object_info"):
        pytest.skip("this older ComfyUI cannot write on images")
    load(editor, json.loads(SWEEP.read_text(encoding="utf-8")))
    outputs = client.run(with_small_models(prompt_of(editor), pictures))
    (image,) = [image for node in outputs.values() for image in node.get("images", [])]
    sheet = Image.open(io.BytesIO(client.fetch(image)))
    assert sheet.size == (1032, 1032)
    pixels = np.asarray(sheet.convert("RGB"), dtype=int)
    cells = [pixels[y : y + 512, x : x + 512] for y in (0, 520) for x in (0, 520)]
    plain = [cell[:400] for cell in cells]  # above the labels
    for one, other in itertools.combinations(plain, 2):
        assert np.abs(one - other).mean() > 0.5
    letters = [np.min(cell, axis=-1) > 200 for cell in cells]  # white, and nothing else is
    assert [white[:400].sum() for white in letters] == [0] * 4
    assert min(white[440:].sum() for white in letters) > 100


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_template_browser_offers_each_with_a_thumbnail(client: ComfyClient, path: Path) -> None:
    offered = client.get_json("/workflow_templates")[PACK_NAME]
    assert sorted(offered) == [example.stem for example in EXAMPLES]
    folder = f"/api/workflow_templates/{PACK_NAME}"
    assert json.loads(client.get(f"{folder}/{path.name}")) == json.loads(path.read_text())
    thumbnail = path.with_suffix(".jpg")
    assert client.get(f"{folder}/{thumbnail.name}") == thumbnail.read_bytes()
    assert thumbnail.stat().st_size < THUMBNAIL_BYTES
    with Image.open(thumbnail) as image:
        assert image.format == "JPEG"
        assert image.width == THUMBNAIL_WIDTH


def test_there_are_no_other_thumbnails() -> None:
    found = {path.stem for path in EXAMPLES[0].parent.glob("*.jpg")}
    assert found == {path.stem for path in EXAMPLES}


@pytest.fixture
def pictures(server: ComfyServer, z_image: None, tmp_path: Path) -> Path:
    """A folder with images, and the one that the examples load in ComfyUI's input folder."""
    for number, color in enumerate(("red", "green")):
        Image.new("RGB", (96, 64), color).save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", server.work / "input" / "example.png")
    return tmp_path


def overlaps(page: Page) -> list[tuple[Any, Any]]:
    """The ids of nodes that lie on each other, at the sizes that the editor gives them."""
    return [
        (one[0], other[0])
        for one, other in itertools.combinations(page.evaluate(RECTANGLES), 2)
        if one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]
    ]


def with_small_models(prompt: dict[str, Any], pictures: Path) -> dict[str, Any]:
    """The prompt with the models of the tests, and a small image."""
    kinds = {item["class_type"] for item in prompt.values()}
    # A swept LoRA is that of the small Qwen-Image, whatever the example is for.
    names = [i["inputs"].get("unet_name", "") for i in prompt.values()]
    is_z = any("z_image" in name for name in names) and "VivaceLoraLoader" not in kinds
    for item in prompt.values():
        inputs = item["inputs"]
        match item["class_type"]:
            case "VivaceLoadSvdquantModel":
                inputs["model_name"] = QUANTIZED
            case "UNETLoader":
                inputs["unet_name"] = Z_IMAGE if is_z else MODEL_FILE
            case "VivaceLoraLoader":
                inputs["lora"] = PEFT
            case "VivaceLoraStack" if not is_z and "UNETLoader" in kinds:
                inputs["rows"] = {"__value__": [row(PEFT, 0.5)]}
            case "VivaceQwenVL" | "VivaceQwenVLBatch":
                inputs |= {"engine.model": "small-qwen3_vl", "max_tokens": 6}
                inputs |= {"folder": str(pictures)} if "folder" in inputs else {}
            case "VivaceGenerateText":
                inputs |= {"engine.model": "small-qwen3_vl", "max_tokens": 6}
            case "VivaceGenerateMusic":
                inputs |= {"model": "small-mono", "duration": 0.5}
            case "CLIPTextEncode":
                item["class_type"] = "VivaceTestConditioning"
                item["inputs"] = {"seed": 3, "tokens": 12, "width": WIDTHS["z" if is_z else "qwen"]}
                if is_z:  # the text is what another node writes
                    item["inputs"]["text"] = inputs["text"]
            case "VAEDecode" if is_z:
                item["class_type"] = "SaveLatent"  # the small VAE is that of Qwen-Image
                item["inputs"] = {"samples": inputs["samples"], "filename_prefix": "z"}
            case "VAELoader":
                inputs["vae_name"] = VAE_FILE
            case "EmptySD3LatentImage":
                inputs |= {"width": 128, "height": 128}
            case "KSampler":
                inputs |= {"steps": 1, "cfg": 1.0}
    left_out = {"CLIPLoader"} | ({"SaveImage", "VAELoader"} if is_z else set())
    return {name: item for name, item in prompt.items() if item["class_type"] not in left_out}
