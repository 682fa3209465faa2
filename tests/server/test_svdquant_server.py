"""Load SVDQuant Model in a real ComfyUI, over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from support.graphs import KOHYA, PEFT, node, row
from vivace.devkit.demo.workflow import Run, build
from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.doubles.svdquant_files import DENSE, MERGED, QUANTIZED, STRENGTH
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError


def prompt(loader: dict[str, Any], rows: list[dict[str, Any]]) -> Prompt:
    """Loads, applies rows, samples, and saves the latent."""
    found = build(Run("svdquant", rows), MODEL_FILE, None, 3584, [])
    found["model"] = loader
    found["sample"]["inputs"]["steps"] = 1  # the kernels take seconds a step on a CPU
    del found["weights"]
    return found


def quantized(name: str = QUANTIZED, **inputs: Any) -> dict[str, Any]:
    return node("VivaceLoadSvdquantModel", model_name=name, **inputs)


def stock(name: str) -> dict[str, Any]:
    return node("UNETLoader", unet_name=name, weight_dtype="default")


def latent(client: ComfyClient, loader: dict[str, Any], *rows: dict[str, Any]) -> torch.Tensor:
    saved = client.run(prompt(loader, list(rows)))["latent_file"]["latents"][0]
    return load(client.fetch(saved))["latent_tensor"].double()


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.fixture(autouse=True)
def _models(svdquant_models: Path) -> None:
    pass


def test_a_checkpoint_with_a_lora_is_the_dense_model_with_the_lora_merged(
    client: ComfyClient,
) -> None:
    # By models, so that each is loaded once.
    base = latent(client, quantized())
    got = latent(client, quantized(), row(KOHYA, STRENGTH))
    # What is there without the LoRA does not depend on what ran before.
    assert torch.equal(latent(client, quantized(), row(KOHYA, 0.0)), base)
    wanted_base, wanted = latent(client, stock(DENSE)), latent(client, stock(MERGED))
    rounding = error(base, wanted_base)  # of the layers' inputs to 4 bits, and nothing else
    assert error(wanted, wanted_base) > 4 * rounding
    assert error(got, wanted) < 2 * rounding


@pytest.mark.long
def test_the_converted_copy_is_the_same_model(
    client: ComfyClient, svdquant_models: Path, copied: str
) -> None:
    loading = prompt(quantized(copied, keep_converted=True), [row(PEFT, 1.0)])
    client.run({name: loading[name] for name in ("model", "stack", "report")})
    folder = svdquant_models / "diffusion_models"
    copy = folder / copied.replace(".safetensors", ".kitchen.safetensors")
    assert copy.exists()
    listed = client.get_json("/object_info/VivaceLoadSvdquantModel")["VivaceLoadSvdquantModel"]
    assert copy.name not in str(listed)
    client.post("/free", {"unload_models": True, "free_memory": True})
    again = latent(client, quantized(copied, keep_converted=True), row(PEFT, 0.9))
    direct = latent(client, quantized(), row(PEFT, 0.9))
    assert torch.equal(again, direct)


@pytest.fixture
def copied(svdquant_models: Path) -> Iterator[str]:
    name = "vivace-test-copied.safetensors"
    folder = svdquant_models / "diffusion_models"
    shutil.copyfile(folder / QUANTIZED, folder / name)
    yield name
    for path in folder.glob("vivace-test-copied*"):
        path.unlink()


def test_a_missing_file_is_refused_when_queued(client: ComfyClient) -> None:
    with pytest.raises(PromptRejectedError, match="Did you mean"):
        client.run(prompt(quantized(QUANTIZED.replace("r32", "r64")), []))


@pytest.mark.parametrize("name", [MODEL_FILE, DENSE])
def test_other_checkpoints_are_named_and_refused(client: ComfyClient, name: str) -> None:
    with pytest.raises(PromptFailedError, match=r"not a Nunchaku checkpoint.*svdq-int4_r32"):
        client.run(prompt(quantized(name), []))


@pytest.mark.parametrize(
    "consumer",
    [
        {"class_type": "ModelSave", "inputs": {"filename_prefix": "x"}},
        {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"lora_name": KOHYA, "strength_model": 1.0},
        },
    ],
    ids=lambda consumer: consumer["class_type"],
)
def test_merging_and_saving_say_what_to_do_instead(
    client: ComfyClient, consumer: dict[str, Any]
) -> None:
    found = prompt(quantized(), [])
    found["stack"] = node(consumer["class_type"], model=["model", 0], **consumer["inputs"])
    if consumer["class_type"] == "ModelSave":
        found = {name: found[name] for name in ("model", "stack")}
    with pytest.raises(PromptFailedError, match="nothing can be merged"):
        client.run(found)
    latent(client, quantized())
