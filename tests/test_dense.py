"""LoRAs on small but real ComfyUI models in this process."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

DIM, HIDDEN = 3840, 10240


@pytest.fixture(scope="module")
def z_image(comfyui: ModuleType) -> Any:
    """A `ModelPatcher` over a Z-Image with one layer; refiners are part of every Z-Image."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = {
        "image_model": "lumina2", "dim": DIM, "n_layers": 1, "n_refiner_layers": 0,
        "n_heads": 30, "n_kv_heads": 30, "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512], "rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0,
        "z_image_modulation": True, "cap_feat_dim": 2560, "in_channels": 16, "patch_size": 2,
        "qk_norm": True, "time_scale": 1000.0, "disable_unet_model_creation": False,
    }  # fmt: skip
    config.pop("disable_unet_model_creation")
    model_config = comfy.supported_models.ZImage(config)
    model_config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.Lumina2(model_config, device=torch.device("cpu"))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.02)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def patched_weight(model: Any, name: str) -> torch.Tensor:
    import comfy.utils

    model.patch_model(device_to=torch.device("cpu"))
    try:
        return comfy.utils.get_attr(model.model, f"diffusion_model.{name}").detach().clone()
    finally:
        model.unpatch_model(device_to=torch.device("cpu"))


def factors(out_features: int, in_features: int, rank: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(rank, in_features, generator=generator) / 60,
        torch.randn(out_features, rank, generator=generator) / 60,
    ]


def test_z_image_attention_and_mlp(z_image: Any, tmp_path: Path) -> None:
    from vivace.wrappers.dense import apply_loras

    down_q, up_q = factors(DIM, DIM, 4, seed=1)
    down_w1, up_w1 = factors(HIDDEN, DIM, 2, seed=2)
    path = tmp_path / "z.safetensors"
    save_file(
        {
            "diffusion_model.layers.0.attention.to_q.lora_A.weight": down_q,
            "diffusion_model.layers.0.attention.to_q.lora_B.weight": up_q,
            "diffusion_model.layers.0.feed_forward.w1.lora_A.weight": down_w1,
            "diffusion_model.layers.0.feed_forward.w1.lora_B.weight": up_w1,
        },
        path,
    )
    qkv, w1 = "layers.0.attention.qkv.weight", "layers.0.feed_forward.w1.weight"
    before = {name: patched_weight(z_image, name) for name in (qkv, w1)}
    model = apply_loras(z_image, [(path, 0.5)])
    assert model is not z_image
    expected_qkv = before[qkv].double().clone()
    expected_qkv[:DIM] += 0.5 * up_q.double() @ down_q.double()
    expected_w1 = before[w1].double() + 0.5 * up_w1.double() @ down_w1.double()
    assert torch.allclose(patched_weight(model, qkv).double(), expected_qkv, atol=1e-6)
    assert torch.allclose(patched_weight(model, w1).double(), expected_w1, atol=1e-6)
    for name in (qkv, w1):
        assert torch.equal(patched_weight(z_image, name), before[name])


def test_no_lora_is_the_model_itself(z_image: Any) -> None:
    from vivace.wrappers.dense import apply_loras

    assert apply_loras(z_image, []) is z_image


def test_a_bad_file_leaves_the_model_alone(z_image: Any, tmp_path: Path) -> None:
    from vivace.wrappers.dense import apply_loras

    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"bad\.safetensors' cannot be read"):
        apply_loras(z_image, [(bad, 1.0)])
    assert z_image.patches == {}
