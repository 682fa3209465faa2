"""A converted file does elsewhere what its source does here: in diffusers, and in ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.lora_samples import close, loha, lora, named, write
from torch import Tensor
from vivace.byte_lru import ByteLru
from vivace.lora.errors import LoraError
from vivace.lora.factors.delta import Delta
from vivace.lora.loader import load_lora
from vivace.lora.mapping.supported_models import qwen_image, qwen_image_21, z_image
from vivace.lora.tools.derived_file import make

H = 32
MODELS = {
    "qwen_image": qwen_image(depth=2, hidden=H, head=16, text=24, latent=16),
    "qwen_image_21": qwen_image_21(depth=2, hidden=H, ffn=96, head=16, text=24, latent=16),
    "z_image": z_image(depth=2, refiners=1, hidden=H, ffn=85, head=16, text=24, latent=16),
}
# Spellings that diffusers itself cannot read, each with the size of the weight.
SOURCES: dict[str, dict[str, tuple[int, int]]] = {
    "qwen_image": {
        "lora_unet__transformer_blocks_0_attn_to_q": (H, H),
        "lora_unet__transformer_blocks_1_attn_to_added_qkv": (3 * H, H),
        "lora_unet__transformer_blocks_0_img_mlp_net_2": (H, 4 * H),
        "lora_unet__transformer_blocks_1_txt_mod_1": (6 * H, H),
        "lora_unet__proj_out": (16, H),
    },
    "qwen_image_21": {
        "lora_unet_transformer_blocks_0_img_mlp_gate_up": (192, H),
        "lora_unet_transformer_blocks_1_attn_to_out_0": (H, H),
        "lora_unet_modulation_1": (4 * H, H),
        "lora_unet_txt_in_in_layer": (H, 24),
    },
    "z_image": {
        "lora_transformer_layers_0_attention_qkv": (3 * H, H),
        "lora_transformer_layers_1_attention_wo": (H, H),
        "lora_transformer_context_refiner_0_feed_forward_w3": (85, H),
        "lora_transformer_all_x_embedder_2-1": (H, 16),
    },
}


def source(path: Path, model: str) -> Path:
    """A LoRA in float32 with alphas."""
    tensors: dict[str, Tensor] = {}
    for stem, (out, inp) in SOURCES[model].items():
        tensors |= named(stem, lora(out, inp, torch.float32, rank=3, alpha=2.0))
    return write(path, tensors)


def wanted(path: Path, model: str) -> dict[str, Tensor]:
    """The change of every module, in float64, by the names of ComfyUI."""
    architecture = MODELS[model]
    found: dict[str, Tensor] = {}
    for module, entries in load_lora(path, "cpu", (architecture,), ByteLru(0)).deltas.items():
        total = found.setdefault(module, torch.zeros(architecture.modules[module].shape).double())
        for entry in entries:
            assert isinstance(entry.delta, Delta)
            total[entry.start : entry.stop] += entry.delta.matrix(torch.float64)
    return found


def small(model: str) -> Any:
    """The real class of diffusers, small."""
    diffusers = pytest.importorskip("diffusers", reason="an oracle of the newest ComfyUI only")
    if model == "qwen_image":
        made = diffusers.QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=24, axes_dims_rope=(4, 6, 6),
        )  # fmt: skip
    elif model == "qwen_image_21":
        made = diffusers.QwenImage21Transformer2DModel(
            in_channels=16, out_channels=16, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, context_in_dim=24, axes_dims_rope=(4, 6, 6),
        )  # fmt: skip
    else:
        made = diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=H, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
            cap_feat_dim=24, axes_dims=[4, 6, 6], axes_lens=[32, 32, 32],
        )  # fmt: skip
    return made.double()


def in_diffusers(model: str, path: Path) -> dict[str, Tensor]:
    """What diffusers' own loader makes of the weights, by its names."""
    network = small(model)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    tensors = {name: tensor.double() for name, tensor in load_file(path).items()}
    network.load_lora_adapter(tensors, prefix="transformer")
    network.fuse_lora()
    found = {}
    for name, tensor in network.named_parameters():
        plain = name.replace(".base_layer", "")
        if plain in before and not torch.equal(tensor, before[plain]):
            found[plain.removesuffix(".weight")] = (tensor - before[plain]).detach()
    return found


def by_comfyui_names(model: str, changes: dict[str, Tensor]) -> dict[str, Tensor]:
    architecture = MODELS[model]
    found: dict[str, Tensor] = {}
    for name, change in changes.items():
        module, part = architecture.aliases.get(name, (name, None))
        rows = slice(*architecture.rows(module, part))
        total = found.setdefault(module, torch.zeros(architecture.modules[module].shape).double())
        total[rows] += change
    return found


@pytest.mark.parametrize("model", MODELS)
def test_peft_s_form_in_diffusers(model: str, tmp_path: Path) -> None:
    path = source(tmp_path / "a.safetensors", model)
    out = tmp_path / "b.safetensors"
    made = make([(path, 1.0)], out, tool="test", style="peft", architectures=(MODELS[model],))
    assert made.error < 1e-7
    theirs = by_comfyui_names(model, in_diffusers(model, out))
    ours = wanted(path, model)
    assert theirs.keys() == ours.keys()
    assert all(close(theirs[name], change) for name, change in ours.items())


@pytest.mark.usefixtures("comfyui")
@pytest.mark.parametrize("style", ["comfyui", "kohya"])
@pytest.mark.parametrize("model", ["qwen_image", "z_image"])
def test_other_forms_in_comfyui(model: str, style: str, tmp_path: Path) -> None:
    import comfy.lora
    import comfy.lora_convert

    path = source(tmp_path / "a.safetensors", model)
    out = tmp_path / "b.safetensors"
    make([(path, 1.0)], out, tool="test", style=style, architectures=(MODELS[model],))
    ours = wanted(path, model)
    flat = {f"lora_unet_{name.replace('.', '_')}": name for name in ours}
    keys = {f"diffusion_model.{name}": name for name in ours} | flat
    targets = {spelling: f"diffusion_model.{name}.weight" for spelling, name in keys.items()}
    tensors = comfy.lora_convert.convert_lora(load_file(out))
    patches = comfy.lora.load_lora(tensors, targets, log_missing=False)
    for name, change in ours.items():
        key = f"diffusion_model.{name}.weight"
        patch = [(1.0, patches[key], 1.0, None, None)]
        merged = comfy.lora.calculate_weight(patch, torch.zeros(change.shape), key)
        assert close(merged, change)


def test_a_type_that_rounds_is_never_called_exact(tmp_path: Path) -> None:
    stem = "diffusion_model.layers.0.attention.out"
    path = write(tmp_path / "a.safetensors", named(stem, loha(H, H, torch.float32, rank=12)))
    architectures = (MODELS["z_image"],)
    exact, rounded = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    made = make([(path, 1.0)], exact, tool="t", style="comfyui", architectures=architectures)
    assert made.error == 0.0
    made = make(
        [(path, 1.0)], rounded, tool="t", style="comfyui", architectures=architectures,
        dtype=torch.bfloat16,
    )  # fmt: skip
    change, stored = (wanted(p, "z_image")["layers.0.attention.out"] for p in (path, rounded))
    error = float((change - stored).norm() / change.norm())
    assert 1e-4 < made.error == pytest.approx(error, rel=1e-6)


def test_a_bias_that_no_other_program_has_is_refused(tmp_path: Path) -> None:
    stem = "diffusion_model.layers.0.attention.out"
    tensors = named(stem, lora(H, H, torch.float32)) | {f"{stem}.lora_B.bias": torch.ones(H)}
    path = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(LoraError, match="it has no bias"):
        make(
            [(path, 1.0)], tmp_path / "b.safetensors", tool="t", architectures=(MODELS["z_image"],)
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
