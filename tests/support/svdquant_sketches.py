"""Checkpoints of shapes only, of two small models."""

from __future__ import annotations

import torch
from vivace.devkit.doubles.svdquant_checkpoints import Built, build, stock_weights
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.mapping.supported_models import qwen_image, z_image
from vivace.svdquant.checkpoint import Checkpoint, describe

QWEN = qwen_image(depth=2, hidden=256, head=128, text=48, latent=64)
Z_IMAGE = z_image(depth=2, refiners=1, hidden=256, ffn=384, head=128, text=48, latent=64)


def sketch(
    architecture: Architecture = Z_IMAGE, rank: int = 32, dtype: torch.dtype = torch.bfloat16,
    *, skip_refiners: bool = False,
) -> Built:  # fmt: skip
    """A checkpoint without values."""
    weights = stock_weights(architecture, dtype, "meta")
    return build(architecture, weights, rank, skip_refiners=skip_refiners)


def described(built: Built) -> Checkpoint:
    return describe(built.header(), "model.safetensors")
