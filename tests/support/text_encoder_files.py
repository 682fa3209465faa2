"""Text encoders and VAEs under the names that they are published by, small inside.

A server takes the text encoders with the custom node in `tests/server/commands/custom_nodes`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from vivace.devkit.doubles.demo_models import VAE_FILE, random_like, save

QWEN_ENCODER = "qwen_2.5_vl_7b.safetensors"
Z_ENCODER = "qwen_3_4b.safetensors"
QWEN_VAE = "qwen_image_vae.safetensors"
Z_VAE = "ae.safetensors"
LAYERS, MLP, HEAD = 3, 64, 128  # Z-Image takes what the last but one gives
TABLE = 1009  # rows of the embedding that differ


def ensure_text_encoders(folder: Path, models: Path) -> None:
    """Make the files (1.9 GB) that are missing, in `text_encoders` and `vae` below `folder`."""
    encoders, vaes = folder / "text_encoders", folder / "vae"
    vaes.mkdir(parents=True, exist_ok=True)
    if not (vaes / QWEN_VAE).exists():  # or another process may be reading it
        shutil.copyfile(models / "vae" / VAE_FILE, vaes / QWEN_VAE)
    if not (vaes / Z_VAE).exists():
        from comfy.taesd.taesd import TAESD

        with torch.device("meta"):
            model = TAESD(latent_channels=16)
        save(random_like(model, torch.float32, seed=6), vaes / Z_VAE)
    if not (encoders / QWEN_ENCODER).exists():
        save(_encoder(152064, 3584, 28, 4, biases=True), encoders / QWEN_ENCODER)
    if not (encoders / Z_ENCODER).exists():
        save(_encoder(151936, 2560, 32, 8, biases=False), encoders / Z_ENCODER)


def _encoder(
    vocabulary: int, width: int, heads: int, groups: int, *, biases: bool
) -> dict[str, torch.Tensor]:
    """Weights as Hugging Face names them, bf16; without the vision tower, which no text needs."""
    generator = torch.Generator().manual_seed(7)

    def weight(out: int, into: int) -> torch.Tensor:
        return (torch.randn(out, into, generator=generator) / into**0.5).bfloat16()

    table = torch.randn(TABLE, width, generator=generator).bfloat16()
    ones = torch.ones(width, dtype=torch.bfloat16)
    found = {"model.embed_tokens.weight": table[torch.arange(vocabulary) % TABLE]}
    found["model.norm.weight"] = ones.clone()
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        for name, rows in (("q", heads), ("k", groups), ("v", groups)):
            found[f"{stem}.self_attn.{name}_proj.weight"] = weight(rows * HEAD, width)
            if biases:
                bias = torch.zeros(rows * HEAD, dtype=torch.bfloat16)
                found[f"{stem}.self_attn.{name}_proj.bias"] = bias
        if not biases:
            for name in "qk":
                norm = torch.ones(HEAD, dtype=torch.bfloat16)
                found[f"{stem}.self_attn.{name}_norm.weight"] = norm
        found[f"{stem}.self_attn.o_proj.weight"] = weight(width, heads * HEAD)
        found[f"{stem}.mlp.gate_proj.weight"] = weight(MLP, width)
        found[f"{stem}.mlp.up_proj.weight"] = weight(MLP, width)
        found[f"{stem}.mlp.down_proj.weight"] = weight(width, MLP)
        found[f"{stem}.input_layernorm.weight"] = ones.clone()
        found[f"{stem}.post_attention_layernorm.weight"] = ones.clone()
    return found
