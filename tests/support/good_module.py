"""Tensors of one module, in a file with another module that is fine."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from support.lora_samples import load, lora, named, write
from vivace.lora.loader import Lora

GOOD = "transformer_blocks.0.attn.to_k"
STEM = "transformer_blocks.0.attn.to_q"
PLAIN = lora(32, 32, torch.float32)


def with_good(tensors: dict[str, torch.Tensor], path: Path, metadata: object = None) -> Lora:
    """Load a file of these tensors and a plain LoRA of `GOOD`."""
    header = None if metadata is None else {"lora_adapter_metadata": json.dumps(metadata)}
    return load(write(path / "a.safetensors", {**named(GOOD, PLAIN), **tensors}, header))
