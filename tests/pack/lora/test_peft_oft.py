"""OFT of peft, whose tensors mean something only with its configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.lora_samples import load, random, write
from vivace.lora.errors import LoraModelError
from vivace.lora.examine import inspect

GOOD = "transformer_blocks.0.attn.to_k"
STEM = "transformer_blocks.0.attn.to_q"
OFT = {
    "peft_type": "OFT",
    "r": 0,
    "oft_block_size": 8,
    "use_cayley_neumann": True,
    "num_cayley_neumann_terms": 5,
    "peft_version": "0.18.0",
}
ROTATED = {f"{STEM}.oft_R.weight": random(4, 28) / 10}


@pytest.mark.parametrize(
    ("tensors", "said", "reason"),
    [
        ({k: t * 1e15 for k, t in ROTATED.items()}, {}, "overflows"),
        (ROTATED, {"coft": 1}, "coft"),
        (ROTATED, {"lora_alpha": "x"}, "lora_alpha 'x'"),
    ],
)
def test_oft_of_peft_that_cannot_be_computed(
    tensors: dict[str, torch.Tensor], said: dict[str, object], reason: str, tmp_path: Path
) -> None:
    header = {"lora_adapter_metadata": json.dumps(OFT | said)}
    other = {f"{GOOD}.diff": random(32, 32)}
    found = load(write(tmp_path / "a.safetensors", {**tensors, **other}, header))
    assert set(found.deltas) == {GOOD}
    assert reason in found.report.faults[0].reason


@pytest.mark.parametrize("tensors", [ROTATED, {f"{STEM}.ia3_l": random(32, 1)}])
def test_two_spellings_of_one_change_of_the_weight(
    tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    again = {f"transformer.{key}": tensor.clone() for key, tensor in tensors.items()}
    config = OFT if tensors is ROTATED else {"peft_type": "IA3"}
    header = {"lora_adapter_metadata": json.dumps(config)}
    found = load(write(tmp_path / "a.safetensors", tensors | again, header))
    assert len([e for e in found.deltas[STEM] if e.parameter == "weight"]) == 1
    again = {key: 2 * tensor for key, tensor in again.items()}
    with pytest.raises(LoraModelError, match="they differ"):
        load(write(tmp_path / "b.safetensors", tensors | again, header))


@pytest.mark.parametrize(
    ("inputs", "model"), [(3072, "qwen_image"), (4096, "qwen_image_21"), (1536, None)]
)
def test_blocks_of_oft_tell_the_width(inputs: int, model: str | None, tmp_path: Path) -> None:
    stems = [f"transformer_blocks.0.attn.to_{x}" for x in "qkv"]
    tensors = {f"{stem}.oft_R.weight": torch.zeros(inputs // 32, 496) for stem in stems}
    header = {"lora_adapter_metadata": json.dumps(OFT | {"oft_block_size": 32})}
    report = inspect(write(tmp_path / "a.safetensors", tensors, header))
    assert report.modules_matched == (0 if model is None else 3)
    assert model is None or report.line().split(": ")[1].startswith(f"{model} ")


def test_shared_blocks_tell_no_width(tmp_path: Path) -> None:
    """With names that other models have too, and no label, nothing says whose they are."""
    config = OFT | {"oft_block_size": 32, "block_share": True}
    header = {"lora_adapter_metadata": json.dumps(config)}
    tensors = {f"transformer_blocks.0.attn.to_{x}.oft_R.weight": torch.zeros(1, 496) for x in "qkv"}
    refused = inspect(write(tmp_path / "a.safetensors", tensors, header))
    assert "do not tell the width of the model" in (refused.refusal or "")
    labelled = header | {"modelspec.architecture": "qwen-image/lora"}
    assert inspect(write(tmp_path / "b.safetensors", tensors, labelled)).modules_matched == 3
    own = {"transformer_blocks.59.attn.to_q.oft_R.weight": torch.zeros(1, 496)}
    assert inspect(write(tmp_path / "c.safetensors", tensors | own, header)).modules_matched == 4
