"""ControlNets as ComfyUI's loaders build them, but small, and a picture encoder for them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from vivace.devkit.doubles import tiny_models as tiny

from .applying import random

HEADS, HEAD = 2, 128


class Encoder:
    """What ControlNets use of a VAE: 8 pixels become a number of a latent."""

    def __init__(self, three_d: bool) -> None:
        self._three_d = three_d

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """``[B, H, W, 3]`` to ``[B, 16, (1,) H / 8, W / 8]``."""
        small = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8)
        mixed = torch.einsum("bchw,cd->bdhw", small, random(3, 16, seed=40))
        return mixed.unsqueeze(2) if self._three_d else mixed


def picture(seed: int = 41) -> torch.Tensor:
    """An IMAGE as large as the latents that the tests sample."""
    return random(1, 64, 64, 3, seed=seed).sigmoid()


def controlled(
    positive: list[Any], negative: list[Any], control: Any, end: float = 1.0
) -> tuple[list[Any], list[Any]]:
    """Both conditions with a ControlNet until a part of the run, as *Apply ControlNet* makes it."""
    node = import_module("nodes").ControlNetApplyAdvanced()
    encoder = Encoder(three_d=True)
    return node.apply_controlnet(positive, negative, control, picture(), 0.8, 0.0, end, vae=encoder)


def filled(module: torch.nn.Module, seed: int = 42) -> torch.nn.Module:
    """The module with weights that neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.data = noise / parameter.shape[-1] ** 0.5
        else:
            parameter.data = 0.02 * noise + (1.0 if name.endswith("weight") else 0.0)
    return module


def instantx() -> Any:
    """A CONTROL_NET as of InstantX' union model for Qwen-Image, with one block."""
    import comfy.ops
    from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel

    settings = {k: v for k, v in tiny.QWEN.items() if k != "image_model"}
    network = QwenImageControlNetModel(
        operations=comfy.ops.manual_cast, dtype=torch.float32, **{**settings, "num_layers": 1}
    )
    return _control_net(network)


def fun() -> Any:
    """A CONTROL_NET as of the Fun model for Qwen-Image, which calls layers of the base model."""
    import comfy.controlnet
    import comfy.ops
    from comfy.ldm.qwen_image.controlnet import QwenImageFunControlNetModel

    network = QwenImageFunControlNetModel(
        inner_dim=tiny.QWEN_DIM,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD,
        num_control_blocks=2,
        injection_layers=(0, 1),
        operations=comfy.ops.manual_cast,
        dtype=torch.float32,
    )
    return _control_net(network, comfy.controlnet.QwenFunControlNet)


def _control_net(network: Any, kind: Any = None) -> Any:
    import comfy.controlnet
    import comfy.latent_formats
    from comfy.model_management import get_torch_device

    return (kind or comfy.controlnet.ControlNet)(
        filled(network),
        compression_ratio=1,
        latent_format=comfy.latent_formats.Wan21(),
        load_device=get_torch_device(),
        extra_conds=[],
    )


def diffsynth(extra_channels: int = 0) -> Any:
    """A MODEL_PATCH as of DiffSynth's blockwise ControlNets for Qwen-Image."""
    import comfy.ops
    from comfy_extras.nodes_model_patch import QwenImageBlockWiseControlNet

    return _model_patch(
        QwenImageBlockWiseControlNet(
            num_layers=2,
            additional_in_dim=extra_channels,
            dim=tiny.QWEN_DIM,
            operations=comfy.ops.manual_cast,
            dtype=torch.float32,
        )
    )


def z_image_fun() -> Any:
    """A MODEL_PATCH as of the Fun union model 2.0 for Z-Image: also of the refiner's blocks."""
    import comfy.ops
    from comfy.ldm.lumina.controlnet import ZImage_Control

    return _model_patch(
        ZImage_Control(
            dim=tiny.Z_DIM,
            n_heads=HEADS,
            n_kv_heads=HEADS,
            ffn_dim_multiplier=1.0,
            n_control_layers=15,
            additional_in_dim=17,
            refiner_control=True,
            operations=comfy.ops.manual_cast,
            dtype=torch.float32,
        )
    )


def _model_patch(network: Any) -> Any:
    import comfy.model_patcher
    from comfy.model_management import get_torch_device

    make = comfy.model_patcher.CoreModelPatcher
    return make(filled(network), load_device=get_torch_device(), offload_device=tiny.CPU)
