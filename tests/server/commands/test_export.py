"""`vivace export`, in processes of its own: its files hold what the LoRAs add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.cli_process import refused, start, vivace_json
from support.cli_queue import FLOW, Queue, check_pending_is_cancelled, interrupt_when
from support.graphs import KOHYA, PEFT
from vivace.devkit.doubles.demo_models import LORAS, MODEL_FILE, lora_state_dict
from vivace.devkit.rig.layout import MODELS
from vivace.devkit.rig.server import ComfyServer

FILES = {name: MODELS / "loras" / name for name in (PEFT, KOHYA)}
BOTH = {PEFT: 0.8, KOHYA: -0.5}


def deltas(strengths: dict[str, float]) -> dict[str, torch.Tensor]:
    """What the demo's LoRAs add to each module, fp64."""
    found: dict[str, torch.Tensor] = {}
    for lora in LORAS:
        if lora.filename not in strengths:
            continue
        factors = lora_state_dict(lora)
        scale = strengths[lora.filename] * (lora.alpha or lora.rank) / lora.rank
        for module in lora.modules:
            stem = lora.stem(module)
            up, down = (factors[f"{stem}.{role}"].double() for role in (lora.up, lora.down))
            name = f"transformer_blocks.0.{module}"
            found[name] = found.get(name, 0) + scale * (up @ down)
    return found


def check_lora(path: Path, expected: dict[str, torch.Tensor]) -> None:
    tensors = load_file(path)
    modules = {name.rsplit(".lora_", 1)[0] for name in tensors if ".lora_" in name}
    assert {name.removeprefix("diffusion_model.") for name in modules} == set(expected)
    for module in modules:
        up, down = (tensors[f"{module}.lora_{role}.weight"].double() for role in ("up", "down"))
        alpha = float(tensors.get(f"{module}.alpha", torch.tensor(float(len(down)))))
        wanted = expected[module.removeprefix("diffusion_model.")]
        torch.testing.assert_close(up @ down * alpha / len(down), wanted, rtol=1e-5, atol=1e-6)


def words(strengths: dict[str, float]) -> list[str]:
    return [f"{FILES[name]}:{strength}" for name, strength in strengths.items()]


@pytest.mark.usefixtures("models")
def test_a_lora_of_files(tmp_path: Path) -> None:
    out = tmp_path / "both.safetensors"
    found = vivace_json("http://127.0.0.1:9", "export", *words(BOTH), "-o", out)
    assert (found["path"], found["modules"]) == (str(out), 6)
    assert found["error"] < 1e-6  # of the strengths in fp32
    check_lora(out, deltas(BOTH))


def test_a_lora_of_a_workflow(server: ComfyServer, tmp_path: Path) -> None:
    out = tmp_path / "flow.safetensors"
    vivace_json(server.url, "export", FLOW, "-o", out, "--models", MODELS)
    check_lora(out, deltas({PEFT: 0.8}))  # the other row is off


def test_a_baked_model(server: ComfyServer, tmp_path: Path) -> None:
    out = tmp_path / "baked.safetensors"
    found = vivace_json(server.url, "export", *words(BOTH), "--base", MODEL_FILE, "-o", out)
    assert found["path"] == str(out)
    assert found["loras"] == [{"lora": name, "strength": BOTH[name]} for name in BOTH]
    assert (server.output / found["on_server"]).is_file()
    baked = {
        name.removeprefix("model.diffusion_model."): tensor
        for name, tensor in load_file(out).items()
    }
    plain = load_file(MODELS / "diffusion_models" / MODEL_FILE)
    assert set(baked) == set(plain)
    expected = deltas(BOTH)
    for name, tensor in plain.items():
        delta = expected.get(name.removesuffix(".weight"))
        if delta is None:
            assert torch.equal(baked[name], tensor.to(baked[name].dtype)), name
            continue
        exact = tensor.double() + delta
        # The server computes in its own type, fp32 on the CPU.
        step = torch.finfo(baked[name].dtype).eps
        error = (baked[name].double() - exact).abs()
        assert bool((error <= 4 * step * (tensor.double().abs() + delta.abs() + 1)).all()), name
        assert error.norm() < 1e-2 * delta.norm(), name


def test_left_on_the_server(server: ComfyServer, tmp_path: Path) -> None:
    out = tmp_path / "here.safetensors"
    found = vivace_json(
        server.url, "export", f"{PEFT}:0.3", "--base", MODEL_FILE, "-o", out, "--on-server"
    )
    assert found["path"] is None
    made = server.output / found["on_server"]
    assert made.stat().st_size > 700e6
    made.unlink()
    assert list(tmp_path.iterdir()) == []


def test_interrupt(server: ComfyServer, queue: Queue, tmp_path: Path) -> None:
    out = tmp_path / "out" / "baked.safetensors"
    out.parent.mkdir()
    bake = ("export", f"{PEFT}:0.4", "--base", MODEL_FILE, "-o", out)
    check_pending_is_cancelled(queue, tmp_path / "endless", *bake)
    # A download that is cut off leaves nothing.
    process = start(server.url, *bake)
    interrupt_when(process, lambda: any(out.parent.glob(".*.part")))
    assert list(out.parent.iterdir()) == []


def test_bad_input(server: ComfyServer, queue: Queue, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"kept")
    several = json.loads(FLOW.read_text())
    several["nodes"].append({**several["nodes"][1], "id": 22, "inputs": []})
    two = tmp_path / "two.json"
    two.write_text(json.dumps(several))
    none = tmp_path / "none.json"
    source = {"class_type": "PreviewAny", "inputs": {"source": "x"}}
    none.write_text(json.dumps({"1": source}))
    svdq = tmp_path / "empty.json"
    stack: dict[str, Any] = {"class_type": "VivaceLoraStack", "inputs": {"rows": []}}
    svdq.write_text(json.dumps({"1": stack}))
    base = ("--base", MODEL_FILE)
    bad: list[tuple[tuple[str | Path, ...], int, str]] = [
        (("gone.safetensors", "-o", out), 1, "There is no LoRA gone.safetensors here"),
        ((FLOW, "-o", out), 1, "or ComfyUI's with --models"),
        ((f"{PEFT}:much", "-o", out), 2, "is 'much', which is no number"),
        ((PEFT, *base, "-o", there), 1, "is there already"),
        ((PEFT, "--base", "vivace-demo-qwen-imag.safetensors", "-o", out), 2, "did you mean"),
        ((PEFT, "--base", "x-svdq.safetensors", "-o", out), 2, "no such diffusion model"),
        (("gone.safetensors", *base, "-o", out), 2, "STACK gone.safetensors: The LoRA"),
        ((PEFT, *base, "--rank", "4", "-o", out), 2, "--rank is for LoRA files"),
        ((PEFT, "--on-server", "-o", out), 2, "--on-server goes with --base"),
        ((PEFT, "--node", "1", "-o", out), 2, "--node goes with a workflow"),
        ((FLOW, PEFT, "-o", out), 2, "A workflow stands for the whole stack"),
        ((two, *base, "-o", out), 2, "Choose with --node: 2 (LoRA Stack), 22 (LoRA Stack)"),
        ((two, *base, "--node", "23", "-o", out), 2, "has no LoRA Stack '23'"),
        ((none, *base, "-o", out), 1, "has no LoRA Stack"),
        ((svdq, *base, "-o", out), 1, "has no LoRA that is on"),
        ((tmp_path / "absent.json", *base, "-o", out), 1, "there is no such file"),
    ]
    for given, status, message in bad:
        found = refused(server.url, "export", *given)
        assert found[0] == status, (given, found)
        assert message in found[1], (given, found)
    assert there.read_bytes() == b"kept"
    assert not out.exists()
    assert queue.ids("pending") == []
