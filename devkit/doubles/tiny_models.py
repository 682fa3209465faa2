"""Small but real ComfyUI models, sampled by ComfyUI's own sampler in this process."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import torch

QWEN_DIM, Z_DIM, TEXT = 256, 256, 48
QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "num_layers": 2,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
}
Z_IMAGE = {
    "image_model": "lumina2",
    "in_channels": 16,
    "dim": Z_DIM,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "axes_dims": [32, 48, 48],
    "axes_lens": [64, 64, 64],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 2.0,
    "qk_norm": True,
    "cap_feat_dim": TEXT,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
    "patch_size": 2,
}
QWEN_21 = {
    "image_model": "qwen_image21",
    "num_layers": 2,
    "num_attention_heads": 2,
    "context_in_dim": TEXT,
}
KINDS = ("fp32", "bf16", "fp8 cast", "fp8 quantized")
CPU = torch.device("cpu")


def qwen_image(kind: str = "fp32") -> Any:
    """A `ModelPatcher` over a two-block Qwen-Image with deterministic random weights."""
    import comfy.model_base
    import comfy.supported_models

    return _patcher(comfy.supported_models.QwenImage, comfy.model_base.QwenImage, QWEN, kind)


def z_image(kind: str = "fp32", **config: Any) -> Any:
    """A `ModelPatcher` over a Z-Image with two layers and one block in each refiner; `config` is
    what differs from `Z_IMAGE`."""
    import comfy.model_base
    import comfy.supported_models

    unet = {**Z_IMAGE, **config}
    return _patcher(comfy.supported_models.ZImage, comfy.model_base.Lumina2, unet, kind)


def qwen_image_21(kind: str = "fp32", fused: bool = True, **config: Any) -> Any:
    """A `ModelPatcher` over the double of Qwen-Image-2.1 with two blocks.

    Args:
        fused: whether the input of the MLPs is one layer, as ComfyUI repacks it.
        config: what differs from `QWEN_21`.
    """
    from .qwen_image_21.small import Config21, Model21

    return _patcher(Config21, Model21, {**QWEN_21, "fused_mlp": fused, **config}, kind)


def sample(model: Any, seed: int = 1, steps: int = 2, **options: Any) -> torch.Tensor:
    """The latent `[1, C, 1 or none, 8, 8]` that ComfyUI's KSampler makes of a fixed noise."""
    import comfy.sample

    shape = latent_shape(model)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    text = torch.randn(1, 6, TEXT, generator=torch.Generator().manual_seed(seed + 1))
    cond = [[text, {}]]
    return comfy.sample.sample(
        model, noise, steps, 1.0, "euler", "simple", cond, cond, torch.zeros(shape),
        disable_pbar=True, seed=seed, **options,
    )  # fmt: skip


def latent_shape(model: Any) -> tuple[int, ...]:
    """The shape ``[1, C, 1 or none, 8, 8]`` of a small latent of a model."""
    latents = model.model.latent_format
    frames = (1,) if latents.latent_dimensions == 3 else ()
    return 1, latents.latent_channels, *frames, 8, 8


def weight_of(model: Any, path: str) -> torch.Tensor:
    """A parameter as ComfyUI's patches make it, without leaving the model patched."""
    import comfy.utils

    if model.is_dynamic():  # which patches a weight where it is used, and has no other way
        name, _, parameter = path.rpartition(".")
        module = model.model.diffusion_model.get_submodule(name)
        key = f"diffusion_model.{path}"
        weight = model.patch_weight_to_device(key, CPU, return_weight=True).detach()
        return weight.to(getattr(module, f"{parameter}_comfy_model_dtype", None), copy=True)
    model.patch_model(device_to=CPU)
    try:
        return comfy.utils.get_attr(model.model, f"diffusion_model.{path}").detach().clone()
    finally:
        model.unpatch_model(device_to=CPU)


def unloaded(family: str, dtype: torch.dtype, operations: Any) -> Any:
    """A model built with these operations, before its weights are loaded."""
    import comfy.model_base
    import comfy.supported_models

    known = comfy.supported_models
    config_class, model_class, unet_config = {
        "qwen_image": (known.QwenImage, comfy.model_base.QwenImage, QWEN),
        "z_image": (known.ZImage, comfy.model_base.Lumina2, Z_IMAGE),
    }[family]
    config = config_class(dict(unet_config))
    config.set_inference_dtype(dtype, None)
    config.custom_operations = operations
    return model_class(config, device=CPU)


def _patcher(config_class: Any, model_class: Any, unet_config: Any, kind: str) -> Any:
    import comfy.model_patcher
    import comfy.ops
    from comfy.model_management import get_torch_device

    config = config_class(dict(unet_config))
    storage = {"bf16": torch.bfloat16, "fp8 cast": torch.float8_e4m3fn}.get(kind, torch.float32)
    compute = torch.bfloat16 if kind == "bf16" else torch.float32
    config.set_inference_dtype(storage, None if storage == compute else compute)
    if kind == "fp8 quantized":
        config.custom_operations = comfy.ops.mixed_precision_ops({}, torch.float32)
    state_dict = _random_weights(model_class, config_class, unet_config)
    if kind == "fp8 quantized":
        state_dict = _quantized(state_dict)
    model = model_class(config, device=CPU)
    patcher = comfy.model_patcher.CoreModelPatcher(model, get_torch_device(), CPU)
    # As ComfyUI's loader: dynamic VRAM takes the file's tensors, not their values.
    model.diffusion_model.load_state_dict(state_dict, strict=False, assign=patcher.is_dynamic())
    return patcher


def _random_weights(model_class: Any, config_class: Any, unet_config: Any) -> dict[str, Any]:
    import comfy.memory_management

    config = config_class(dict(unet_config))
    config.set_inference_dtype(torch.float32, None)
    # With dynamic VRAM, ComfyUI's layers have no weights before they are loaded.
    with patch.object(comfy.memory_management, "aimdo_enabled", False):
        reference = model_class(config, device=CPU).diffusion_model
    generator = torch.Generator().manual_seed(7)
    state_dict = {}
    for name, parameter in reference.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = 0.02 if parameter.ndim < 2 else 0.5 / parameter.shape[-1] ** 0.5
        one = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        state_dict[name] = one + gain * noise
    return state_dict


def _quantized(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Attention and MLP weights as ComfyUI's scaled fp8."""
    import comfy.utils

    layers: dict[str, Any] = {}
    for name in list(state_dict):
        path = name.removesuffix(".weight")
        inner = (".attn.", ".attention.", "_mlp.", ".feed_forward.")
        if path == name or state_dict[name].ndim != 2 or not any(i in path for i in inner):
            continue
        scale = state_dict[name].abs().max() / 448
        state_dict[name] = (state_dict[name] / scale).to(torch.float8_e4m3fn)
        state_dict[f"{path}.weight_scale"] = scale
        layers[path] = {"format": "float8_e4m3fn", "params": {}}
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    converted, _ = comfy.utils.convert_old_quants(state_dict, metadata=metadata)
    return converted
