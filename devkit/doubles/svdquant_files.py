"""A one-block SVDQuant checkpoint at full width, and the dense model that it stands for."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from ...lora.mapping.supported_models import qwen_image
from .demo_models import LORAS, lora_state_dict, save
from .svdquant_checkpoints import build, stock_weights

QUANTIZED = "vivace-test-svdq-int4_r32-qwen-image.safetensors"
DENSE = "vivace-test-effective-qwen-image.safetensors"
MERGED = "vivace-test-effective-merged-qwen-image.safetensors"
STRENGTH = 0.5  # of the demo's second LoRA, in MERGED


def ensure_svdquant_models(folder: Path) -> None:
    """Make the three checkpoints if they are missing; takes about a minute."""
    paths = [folder / "diffusion_models" / name for name in (QUANTIZED, DENSE, MERGED)]
    if all(path.exists() for path in paths):
        return
    architecture = qwen_image(1)
    with torch.inference_mode():
        built = build(architecture, stock_weights(architecture, torch.bfloat16), 32)
        tensors = {name: tensor.contiguous() for name, tensor in built.tensors.items()}
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, paths[0], built.metadata)
        save(_bf16(built.dense), paths[1])
        _merge(built.dense)
        save(_bf16(built.dense), paths[2])


def _bf16(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight.to(torch.bfloat16) for name, weight in weights.items()}


def _merge(weights: dict[str, torch.Tensor]) -> None:
    """Add the LoRA in float64."""
    lora = LORAS[1]
    factors = lora_state_dict(lora)
    for module in lora.modules:
        stem, name = lora.stem(module), f"transformer_blocks.0.{module}.weight"
        up, down = (factors[f"{stem}.{role}"].double() for role in (lora.up, lora.down))
        scale = STRENGTH * (lora.alpha or lora.rank) / lora.rank
        weights[name] = (weights[name].double() + scale * up @ down).float()
