"""Random but deterministic models that ComfyUI's stock loaders accept.

The Qwen-Image has one block at full width: small enough for a CPU, and every weight has its real
shape. The LoRAs are in the formats of two different trainers, so that both ways of stating the
scale (no alpha, and alpha below the rank) are exercised.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

GAIN = 4.0
BLOCK = "transformer_blocks.0"
ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
MLP = ("img_mlp.net.0.proj", "img_mlp.net.2")


@dataclass(frozen=True)
class DemoLora:
    """How one LoRA file is made."""

    filename: str
    modules: tuple[str, ...]
    rank: int
    alpha: float | None
    seed: int
    prefix: str
    flat: bool
    """Whether dots in module names become underscores, as kohya's trainers write them."""
    down: str
    up: str

    def stem(self, module: str) -> str:
        """The name of a module in the file, without the suffix."""
        path = f"{BLOCK}.{module}"
        return self.prefix + (path.replace(".", "_") if self.flat else path)


LORAS = (
    DemoLora(
        "vivace-demo-peft.safetensors",
        modules=ATTENTION,
        rank=8,
        alpha=None,
        seed=11,
        prefix="diffusion_model.",
        flat=False,
        down="lora_A.weight",
        up="lora_B.weight",
    ),
    DemoLora(
        "vivace-demo-kohya.safetensors",
        modules=(*ATTENTION, *MLP),
        rank=16,
        alpha=4.0,
        seed=12,
        prefix="lora_unet_",
        flat=True,
        down="lora_down.weight",
        up="lora_up.weight",
    ),
)
MODEL_FILE = "vivace-demo-qwen-image.safetensors"
VAE_FILE = "vivace-demo-vae.safetensors"


def import_comfy(comfyui: Path) -> None:
    """Make ComfyUI's packages importable in this process, on the CPU."""
    if str(comfyui) not in sys.path:
        sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True


def ensure_models(folder: Path, comfyui: Path) -> None:
    """Make the checkpoint, the VAE and the LoRAs below `folder` if they are missing."""
    makers = {
        folder / "diffusion_models" / MODEL_FILE: qwen_image_state_dict,
        folder / "vae" / VAE_FILE: vae_state_dict,
    }
    for lora in LORAS:
        makers[folder / "loras" / lora.filename] = lambda lora=lora: lora_state_dict(lora)
    missing = [path for path in makers if not path.exists()]
    if missing:
        import_comfy(comfyui)
    for path in missing:
        print(f"Making {path.name} ...", flush=True)
        save(makers[path](), path)


def save(state_dict: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file with a trainer's label; it is there whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    metadata = {"format": "pt", "ss_base_model_version": "qwen_image"}
    save_file({k: v.contiguous() for k, v in state_dict.items()}, unfinished, metadata)
    unfinished.replace(path)


def qwen_image_state_dict() -> dict[str, torch.Tensor]:
    """A one-block Qwen-Image at full width, bf16, from ComfyUI's own model class."""
    import comfy.ops
    import torch
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

    model = QwenImageTransformer2DModel(
        num_layers=1,
        device="meta",
        dtype=torch.bfloat16,
        operations=comfy.ops.disable_weight_init,
    )
    return random_like(model, torch.bfloat16, seed=1)


def vae_state_dict() -> dict[str, torch.Tensor]:
    """A narrow VAE of the kind that Qwen-Image uses (Wan 2.1), fp32."""
    import torch
    from comfy.ldm.wan.vae import WanVAE

    with torch.device("meta"):
        model = WanVAE(dim=16, z_dim=16, num_res_blocks=2, temperal_downsample=[False, True, True])
    return random_like(model, torch.float32, seed=2)


def lora_state_dict(lora: DemoLora) -> dict[str, torch.Tensor]:
    """The tensors of a demo LoRA, fp32, strong enough to be seen in the contact sheet."""
    import torch

    generator = torch.Generator().manual_seed(lora.seed)
    state_dict: dict[str, torch.Tensor] = {}
    for module in lora.modules:
        out_features, in_features = module_shape(module)
        down = torch.randn(lora.rank, in_features, generator=generator) / in_features**0.5
        up = GAIN * torch.randn(out_features, lora.rank, generator=generator) / lora.rank**0.5
        stem = lora.stem(module)
        state_dict[f"{stem}.{lora.down}"] = down
        state_dict[f"{stem}.{lora.up}"] = up
        if lora.alpha is not None:
            state_dict[f"{stem}.alpha"] = torch.tensor(lora.alpha)
    return state_dict


def module_shape(module: str) -> tuple[int, int]:
    """`(out_features, in_features)` of a linear layer in a Qwen-Image block."""
    return {"img_mlp.net.0.proj": (12288, 3072), "img_mlp.net.2": (3072, 12288)}.get(
        module, (3072, 3072)
    )


def random_like(model: Any, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    """Random values for every parameter of a model, which may be on the meta device."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    state_dict = {}
    for name, parameter in _named(model):
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 0
        if fan_in:
            value = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
        elif name.endswith("bias"):
            value = torch.zeros(parameter.shape)
        else:
            value = torch.ones(parameter.shape)
        state_dict[name] = value.to(dtype)
    return state_dict


def _named(model: Any) -> Iterable[tuple[str, torch.Tensor]]:
    return model.state_dict().items()
