"""ComfyUI's own models at real size: whole on the meta device, or one block in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..doubles.demo_models import import_comfy
from ..rig.layout import DEV, NEWEST, DevError

_QWEN = {"image_model": "qwen_image", "in_channels": 64, "num_layers": 60}
_Z_IMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "qk_norm": True,
    "cap_feat_dim": 2560,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 64,
}


def start_comfy(device: str) -> str:
    """Make ComfyUI importable for a device, and return its version.

    Raises:
        DevError: there is no ComfyUI yet.
    """
    folder = comfyui_folder()
    import_comfy(folder)
    from comfy.cli_args import args

    args.cpu = device == "cpu"
    return _version(folder)


def comfyui_folder() -> Path:
    """Where ComfyUI lies.

    Raises:
        DevError: there is none yet.
    """
    folder = Path(os.environ.get("COMFYUI_PATH") or DEV / f"comfyui-{NEWEST.version}")
    if not (folder / "comfyui_version.py").is_file():
        raise DevError("There is no ComfyUI here yet; run `python3 dev.py setup` first.")
    return folder


def _version(folder: Path) -> str:
    return (folder / "comfyui_version.py").read_text().rpartition("=")[2].strip().strip("\"'")


def whole(name: str, blocks: int | None = None) -> Any:
    """A `ModelPatcher` over all modules of a model, bf16, without memory for its weights.

    `blocks`: so many instead of the published number.
    """
    group = "num_layers" if name == "qwen_image" else "n_layers"
    changes = {} if blocks is None else {group: blocks}
    return _patcher(name, changes, torch.device("meta"), torch.bfloat16)


def one_block(device: str, dtype: torch.dtype) -> Any:
    """A `ModelPatcher` over a Qwen-Image of one block at full width, with small random weights."""
    model = _patcher("qwen_image", {"num_layers": 1}, torch.device(device), dtype)
    generator = torch.Generator(device).manual_seed(3)
    with torch.no_grad():
        for parameter in model.model.diffusion_model.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
    return model


def _patcher(name: str, changes: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    if name == "qwen_image":
        config_class, model_class = comfy.supported_models.QwenImage, comfy.model_base.QwenImage
        settings = {**_QWEN, **changes}
    else:
        config_class, model_class = comfy.supported_models.ZImage, comfy.model_base.Lumina2
        settings = {**_Z_IMAGE, **changes}
    config = config_class(dict(settings))
    config.set_inference_dtype(dtype, None)
    model: Any = model_class(config, device=device)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)
