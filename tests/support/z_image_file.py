"""A Z-Image with one layer and whole refiners at full width, which ComfyUI's loader accepts."""

from __future__ import annotations

from pathlib import Path

import torch
from vivace.devkit.doubles.demo_models import random_like, save

Z_IMAGE = "vivace-test-z-image.safetensors"


def ensure_z_image(folder: Path) -> None:
    """Make the checkpoint (1.9 GB) if it is missing."""
    path = folder / "diffusion_models" / Z_IMAGE
    if path.exists():
        return
    import comfy.ops
    from comfy.ldm.lumina.model import NextDiT

    model = NextDiT(
        patch_size=2,
        in_channels=16,
        dim=3840,
        n_layers=1,
        n_refiner_layers=2,
        n_heads=30,
        n_kv_heads=30,
        ffn_dim_multiplier=8.0 / 3.0,
        qk_norm=True,
        cap_feat_dim=2560,
        axes_dims=[32, 48, 48],
        axes_lens=[1536, 512, 512],
        rope_theta=256.0,
        z_image_modulation=True,
        time_scale=1000.0,
        pad_tokens_multiple=32,
        device=torch.device("meta"),
        dtype=torch.bfloat16,
        operations=comfy.ops.disable_weight_init,
    )
    save(random_like(model, torch.bfloat16, seed=5), path)
