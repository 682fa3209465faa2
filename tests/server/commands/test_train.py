"""`vivace train`, in processes of its own: the loss falls, and the LoRA works in our stack."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file
from support.cli_process import refused, start, vivace_json
from support.cli_queue import Queue, check_pending_is_cancelled, interrupt_when
from support.graphs import PEFT
from support.z_image_file import Z_IMAGE
from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.doubles.svdquant_files import QUANTIZED
from vivace.devkit.rig.server import ComfyServer

STEPS = 16
FAST = {
    "model": MODEL_FILE,
    "steps": STEPS,
    "learning_rate": 0.001,
    "rank": 4,
    # What a CPU is fast at.
    "training_dtype": "fp32",
    "lora_dtype": "fp32",
    "bypass": True,
    "gradient_checkpointing": False,
    "seed": 1,
}
SAMPLES = {"prompts": ["a fox"], "size": "64x64", "steps": 1, "cfg": 1, "seed": 5}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "foxes"
    folder.mkdir()
    for name, color in (("a.png", "red"), ("b.jpg", "orange")):
        Image.new("RGB", (64, 64), color).save(folder / name)
        (folder / name).with_suffix(".txt").write_text(f"a {color} fox", "utf-8")
    return folder


def write(path: Path, **values: Any) -> Path:
    """A configuration; JSON is YAML."""
    path.write_text(json.dumps({"dataset": "foxes", "output": "out", **values}))
    return path


def picture(server: ComfyServer, folder: Path, *words: str) -> bytes:
    more = ("--size=64x64", "--steps=1", "--cfg=1", "--seed=5", "-o", folder)
    model = () if "--model" in words else ("--model", MODEL_FILE)
    found = vivace_json(server.url, "infer", "a fox", *model, *more, *words)
    with Image.open(found["runs"][0]["files"][0]["path"]) as image:
        return image.convert("RGB").tobytes()


def test_train_sample_use_and_resume(
    whole_server: ComfyServer, dataset: Path, tmp_path: Path
) -> None:
    # Our nodes have worked with the model before, in ComfyUI's inference mode.
    plain = picture(whole_server, tmp_path / "before")
    assert picture(whole_server, tmp_path / "before", f"--lora={PEFT}:0.5") != plain
    config = write(tmp_path / "fox.yaml", **FAST, samples=SAMPLES)
    found = vivace_json(whole_server.url, "train", config)
    losses = found["losses"]
    assert len(losses) == STEPS == found["steps"]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    lora = Path(found["lora"])
    assert lora == tmp_path / "out" / f"foxes_{STEPS}_steps_00001_.safetensors"
    tensors = load_file(lora)
    assert sum(name.endswith("attn.to_q.lora_up.weight") for name in tensors) == 1
    assert any(bool(tensor.any()) for name, tensor in tensors.items() if ".lora_up" in name)
    with Image.open(found["curve"]) as curve:
        assert curve.size == (960, 540)
        assert len(curve.getcolors(1 << 20)) > 3
    with Image.open(found["samples"][0]) as sample:
        sampled = sample.convert("RGB").tobytes()
    assert sampled != plain

    # The file works where LoRAs are used, and changes the picture as it did after the training.
    loras = whole_server.work / "loras"
    (loras / lora.name).write_bytes(lora.read_bytes())
    used = picture(whole_server, tmp_path / "after", f"--lora={lora.name}")
    assert used != plain
    assert difference(used, sampled) < 0.1 * difference(used, plain)
    assert picture(whole_server, tmp_path / "after") == plain

    again = write(tmp_path / "again.yaml", **FAST | {"steps": 2}, resume=lora.name, name="more")
    more = vivace_json(whole_server.url, "train", again)
    assert Path(more["lora"]).name == f"more_{STEPS + 2}_steps_00001_.safetensors"
    assert len(more["losses"]) == 2
    assert more["samples"] == []
    # The same seed draws the same noise: only what was learnt is different.
    assert sum(more["losses"]) < 0.9 * sum(losses[:2])


@pytest.mark.long
def test_z_image_is_trained(whole_server: ComfyServer, dataset: Path, tmp_path: Path) -> None:
    values = FAST | {"model": Z_IMAGE, "steps": 2}
    found = vivace_json(whole_server.url, "train", write(tmp_path / "z.yaml", **values))
    assert len(found["losses"]) == 2
    assert all(math.isfinite(loss) for loss in found["losses"])
    lora = Path(found["lora"])
    inspected = vivace_json(whole_server.url, "lora", "inspect", lora)
    (report,) = inspected["files"] if isinstance(inspected, dict) else inspected
    assert report["architecture"] == "z_image"
    assert {key["status"] for key in report["keys"]} == {"mapped"}
    (whole_server.work / "loras" / lora.name).write_bytes(lora.read_bytes())
    chosen = ("--model", Z_IMAGE)
    plain = picture(whole_server, tmp_path / "plain", *chosen)
    assert picture(whole_server, tmp_path / "used", *chosen, f"--lora={lora.name}") != plain


def difference(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def test_interrupt(whole_queue: Queue, dataset: Path, tmp_path: Path) -> None:
    config = write(tmp_path / "fox.yaml", **FAST | {"steps": 5000})
    check_pending_is_cancelled(whole_queue, tmp_path / "endless", "train", config)
    process = start(whole_queue.client.url, "train", config)
    interrupt_when(process, lambda: len(whole_queue.ids("running")) == 1)
    assert not (tmp_path / "out").exists()


def test_prompt_only_uploads_nothing(
    whole_server: ComfyServer, dataset: Path, tmp_path: Path
) -> None:
    config = write(tmp_path / "fox.yaml", **FAST, longest_edge=32, samples=["one", "two"])
    before = set((whole_server.work / "input").iterdir())
    prompt = vivace_json(whole_server.url, "train", config, "--prompt-only")
    assert set((whole_server.work / "input").iterdir()) == before
    assert prompt["train"]["inputs"]["rank"] == 4
    assert prompt["resized"]["inputs"]["longer_edge"] == 32
    assert [prompt[f"positive{n}"]["inputs"]["text"] for n in (1, 2)] == ["one", "two"]
    assert prompt["decode2"]["inputs"]["samples"] == ["sampler2", 0]


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"dataset": "gone"}, 1, "There is no folder"),
    ({"dataset": "empty"}, 1, "holds no images"),
    ({"dataset": "bare"}, 1, "has no caption beside it (a.txt)"),
    ({"dataset": None}, 2, "dataset is missing"),
    ({"step": 3}, 2, "unknown key 'step'; did you mean steps?"),
    ({"steps": 0}, 2, "steps 0: must be from 1 to"),
    ({"learning_rate": "fast"}, 2, "learning_rate fast: must be a number"),
    ({"optimizer": "adamw"}, 2, "optimizer adamw: the server has no such choice"),
    ({"rank": [4]}, 2, "rank must be one value"),
    ({"model": 7}, 2, "model must be text"),
    ({"model": "gone.safetensors"}, 2, "no such diffusion model"),
    ({"model": QUANTIZED}, 1, "in 4 bits, which cannot be trained"),
    ({"family": "sdxl"}, 2, "family must be qwen-image or z-image"),
    ({"resume": "gone.safetensors"}, 2, "The LoRA 'gone.safetensors' is not in"),
    ({"resume": PEFT}, 2, "does not say how long it was trained"),
    ({"samples": {"prompts": ["x"], "size": "65x64"}}, 2, "samples.size 65x64: must be two"),
    ({"samples": "a fox"}, 2, "samples must be a list of prompts"),
    ({"samples": {"prompt": ["x"]}}, 2, "did you mean prompts?"),
    ({"longest_edge": 3}, 2, "longest_edge must be a whole number"),
]


def test_bad_input(
    whole_server: ComfyServer, whole_queue: Queue, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.png").write_bytes((dataset / "a.png").read_bytes())
    before = set((whole_server.work / "input").iterdir())
    for number, (values, status, message) in enumerate(BAD):
        config = write(tmp_path / f"{number}.yaml", **FAST | values)
        found = refused(whole_server.url, "train", config)
        assert found[0] == status, (values, found)
        assert message in found[1], (values, found)
    (tmp_path / "list.yaml").write_text("- a\n")
    assert "has no keys" in refused(whole_server.url, "train", tmp_path / "list.yaml")[1]
    (tmp_path / "bad.yaml").write_text("a: [")
    assert "is not YAML" in refused(whole_server.url, "train", tmp_path / "bad.yaml")[1]
    assert "There is no file" in refused(whole_server.url, "train", tmp_path / "no.yaml")[1]
    assert set((whole_server.work / "input").iterdir()) == before
    assert not (tmp_path / "out").exists()
    assert whole_queue.ids("pending") == []


def test_a_damaged_image(whole_server: ComfyServer, dataset: Path, tmp_path: Path) -> None:
    (dataset / "a.png").write_bytes(b"no picture")
    status, errors = refused(whole_server.url, "train", write(tmp_path / "fox.yaml", **FAST))
    assert (status, "(from Folder) (images) failed: cannot identify image file" in errors) == (
        1,
        True,
    ), errors
    assert not (tmp_path / "out").exists()
