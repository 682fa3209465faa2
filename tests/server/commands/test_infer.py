"""`vivace infer`, in processes of its own: every built-in workflow makes pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.cli_process import refused, start, vivace_json
from support.cli_queue import Queue, check_pending_is_cancelled
from support.graphs import KOHYA, PEFT
from support.text_encoder_files import QWEN_ENCODER, QWEN_VAE, Z_ENCODER, Z_VAE
from support.z_image_file import Z_IMAGE
from vivace.cli.workflow.families import TEMPLATES
from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.doubles.svdquant_files import QUANTIZED
from vivace.devkit.rig.server import ComfyServer

FAST = ("--size=64x96", "--steps=2")


def pixels(found: dict[str, Any]) -> list[bytes]:
    paths = [item["path"] for run in found["runs"] for item in run["files"]]
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (64, 96)
            pictures.append(image.convert("RGB").tobytes())
    return pictures


def test_qwen_image(whole_server: ComfyServer, tmp_path: Path) -> None:
    words = ("infer", "a red fox", "--model", MODEL_FILE, *FAST, "-o", tmp_path)
    plain = vivace_json(whole_server.url, *words, "--seed=7", "--count=2")
    assert (plain["family"], plain["model"]) == ("qwen-image", MODEL_FILE)
    assert (plain["text_encoder"], plain["vae"]) == (QWEN_ENCODER, QWEN_VAE)
    first, second = pixels(plain)
    assert first != second
    assert pixels(vivace_json(whole_server.url, *words, "--seed=8")) == [second]
    loras = ("--lora", f"{PEFT}:0.8", "--lora", KOHYA.removesuffix(".safetensors"))
    changed = vivace_json(whole_server.url, *words, "--seed=7", *loras)
    assert [(row["lora"], row["strength"]) for row in changed["loras"]] == [(PEFT, 0.8), (KOHYA, 1)]
    assert pixels(changed) != [first]
    others = {
        "another prompt": ("--seed=7",),
        "a red fox": ("--seed=7", "--cfg=1"),
    }
    for prompt, more in others.items():
        found = vivace_json(whole_server.url, "infer", prompt, *words[2:], *more)
        assert pixels(found) != [first], prompt
    negative = vivace_json(whole_server.url, *words, "--seed=7", "--negative=blurred")
    assert pixels(negative) != [first]


def test_z_image_is_found(whole_server: ComfyServer, tmp_path: Path) -> None:
    words = ("infer", "a red fox", "--family=z-image", *FAST, "--seed=1", "-o", tmp_path)
    found = vivace_json(whole_server.url, *words)
    assert (found["model"], found["text_encoder"], found["vae"]) == (Z_IMAGE, Z_ENCODER, Z_VAE)
    assert len(pixels(found)) == 1
    with Image.open(found["runs"][0]["files"][0]["path"]) as image:
        prompt = json.loads(image.info["prompt"])
    assert prompt["sampler"]["inputs"]["cfg"] == 1
    assert prompt["clip"]["inputs"]["type"] == "lumina2"
    assert "stack" not in prompt  # no LoRA was asked for


@pytest.mark.long
def test_svdquant(whole_server: ComfyServer, tmp_path: Path) -> None:
    # A CPU is slow in 4 bits.
    fast = ("--size=64x96", "--steps=1", "--cfg=1", "--seed=1")
    words = ("infer", "a red fox", "--model", QUANTIZED, *fast, "-o", tmp_path)
    plain = vivace_json(whole_server.url, *words)
    assert pixels(plain) != pixels(vivace_json(whole_server.url, *words, f"--lora={KOHYA}:0.5"))


def test_prompt_only_runs_with_run(whole_server: ComfyServer, tmp_path: Path) -> None:
    words = ("infer", "a red fox", "--model", MODEL_FILE, *FAST, "--seed=3", "-o", tmp_path / "a")
    prompt = vivace_json(whole_server.url, *words, "--prompt-only")
    (tmp_path / "flow.json").write_text(json.dumps(prompt))
    assert not (tmp_path / "a").exists()
    found = vivace_json(whole_server.url, "run", tmp_path / "flow.json", "-o", tmp_path / "b")
    assert pixels(found) == pixels(vivace_json(whole_server.url, *words))


@pytest.mark.parametrize("family", ["qwen_image", "z_image"])
def test_svdquant_differs_by_the_loader_alone(family: str) -> None:
    dense, quantized = (
        json.loads((TEMPLATES / f"{family}{kind}.json").read_text()) for kind in ("", "_svdquant")
    )
    assert dense.pop("model")["class_type"] == "UNETLoader"
    assert quantized.pop("model")["class_type"] == "VivaceLoadSvdquantModel"
    assert dense == quantized


def test_interrupt(whole_queue: Queue, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("infer", "a red fox", "--family=z-image", *FAST, "-o", out)
    check_pending_is_cancelled(whole_queue, tmp_path / "endless", *words)
    assert not out.exists()


BAD: list[tuple[tuple[str, ...], int, str]] = [
    ((), 2, "The server has several models"),
    (("--family=sdxl",), 2, "--family"),
    (("--model=qwen-image-gone.safetensors",), 2, "no such diffusion model"),
    (("--text-encoder=gone",), 2, "--text-encoder gone: the server has no such text encoder"),
    (("--vae=gone",), 2, "--vae gone: the server has no such VAE"),
    (("--lora=vivace-demo-pet",), 2, "Did you mean vivace-demo-peft.safetensors"),
    ((f"--lora={PEFT}:x",), 2, "is 'x', which is no number"),
    (("--size=100x100",), 2, "two multiples of 16"),
    (("--size=64",), 2, "Write it as 1328x800"),
    (("--sampler=eulr",), 2, "did you mean euler?"),
    (("--steps=100000",), 2, "--steps 100000: must be from 1 to 10000"),
    (("--cfg=0",), 2, "--cfg"),
    (("--negative=x", "--cfg=1"), 2, "--negative does nothing"),
]


def test_bad_input(whole_server: ComfyServer, whole_queue: Queue, tmp_path: Path) -> None:
    for words, status, message in BAD:
        model = (
            ()
            if not words or words[0].startswith(("--model", "--family"))
            else ("--model", MODEL_FILE)
        )
        found = refused(whole_server.url, "infer", "x", *model, *words, "-o", tmp_path / "none")
        assert found[0] == status, (words, found)
        assert message in found[1], (words, found)
    assert not (tmp_path / "none").exists()
    assert whole_queue.ids("pending") == []


def test_the_seed_is_told(whole_server: ComfyServer, tmp_path: Path) -> None:
    words = ("infer", "a red fox", "--model", MODEL_FILE, *FAST, "-o", tmp_path)
    process = start(whole_server.url, *words)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    seed = errors.rpartition("seed ")[2].strip()
    with Image.open(output.splitlines()[-1]) as image:
        prompt = json.loads(image.info["prompt"])
    assert prompt["sampler"]["inputs"]["seed"] == int(seed)
