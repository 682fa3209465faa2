"""Small SVDQuant models: stock ones with comfy-kitchen weights, and ones as Nunchaku builds them.

The latter are ComfyUI's own models with the strict doubles of nunchaku's layers in the places and
under the names that ComfyUI-nunchaku gives them, computed through the operations that it uses:
fused ones call no module.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from . import nunchaku_double as double
from . import tiny_models as tiny
from .svdquant_checkpoints import Built, build

FAMILIES = ("qwen_image", "z_image")
_STOCK = {"qwen_image": tiny.qwen_image, "z_image": tiny.z_image}


def sample(model: Any) -> Tensor:
    """The latent after one step: the kernels' doubles are slow, and a step passes all layers."""
    return tiny.sample(model, steps=1)


@lru_cache(maxsize=4)
def checkpoint(family: str, rank: int = 32) -> Built:
    """A checkpoint of a small model; quantized layers compute in float32."""
    from ...wrappers.lora.model_architecture import architecture_of

    with torch.inference_mode():
        stock = _STOCK[family]()
        weights = dict(stock.model.diffusion_model.state_dict())
        return build(architecture_of(stock), weights, rank)


def dense(family: str) -> Any:
    """The stock model with the dense weights that the checkpoint stands for."""
    model = _STOCK[family]()
    model.model.diffusion_model.load_state_dict(checkpoint(family).dense, strict=False)
    return model


def kitchen(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """The stock model as our loader builds it."""
    from ...svdquant.checkpoint import describe
    from ...svdquant.stream import converted
    from ...wrappers.svdquant.svdquant_model import SvdquantPatcher
    from ...wrappers.svdquant.svdquant_ops import cast_side_tensors, operations

    built = checkpoint(family)
    found = describe(built.header(), "test.safetensors")
    state_dict: dict[str, Tensor] = {}
    for piece in converted(found, lambda names: {name: built.tensors[name] for name in names}):
        state_dict.update({name: tensor.clone() for name, tensor in piece.items()})
    model = tiny.unloaded(family, dtype, operations(dtype))
    missing, unexpected = model.diffusion_model.load_state_dict(state_dict, strict=False)
    assert not missing, missing
    assert not unexpected, unexpected
    cast_side_tensors(model, dtype)
    return SvdquantPatcher(model, load_device=tiny.CPU, offload_device=tiny.CPU)


def nunchaku(family: str, offload: bool = False, rank: int = 32) -> Any:
    """The model as ComfyUI-nunchaku's loader builds it."""
    model = _STOCK[family]().model
    network = model.diffusion_model
    built = checkpoint(family, rank)
    network.load_state_dict(built.dense, strict=False)
    if family == "z_image":
        for name, layer in built.layers.items():
            _replace(network, _Z_NAMES(name), layer)
        for group in (network.layers, network.noise_refiner, network.context_refiner):
            for block in group:
                block.attention.__class__ = _fused_attention(type(block.attention))
                block.attention.__dict__.pop("qk_norm", None)
                block.attention.register_forward_pre_hook(_pack_angles)
                block.feed_forward.__class__ = FusedSwiGlu
                for name in ("w1", "w3"):
                    del block.feed_forward._modules[name]
        return _patchers()[1](model, tiny.CPU, tiny.CPU)
    for name, layer in built.layers.items():
        _replace(network, name, layer)
    for block in network.transformer_blocks:
        _prepare_block(block)
    network.__class__ = _offloading(type(network))
    network.offload = False
    if offload:
        network.set_offload(True, num_blocks_on_gpu=1, use_pin_memory=False)
    return _patchers()[0](model, tiny.CPU, tiny.CPU)


def _Z_NAMES(stored: str) -> str:  # noqa: N802
    return (
        stored.replace("attention.to_qkv", "attention.qkv")
        .replace("attention.to_out.0", "attention.out")
        .replace("feed_forward.net.0.proj", "feed_forward.w13")
        .replace("feed_forward.net.2", "feed_forward.w2")
    )


def _replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    from copy import deepcopy

    parent, _, name = path.rpartition(".")
    network.get_submodule(parent)._modules[name] = deepcopy(layer)


class Modulation(nn.Sequential):
    """SiLU and an AWQ layer; brings rows and scales to what ComfyUI's block computes with."""

    def forward(self, input: Tensor) -> Tensor:
        """``[B, dim]`` to planar ``[B, 6 * dim]``."""
        y = self[1](self[0](input))
        planar = y.unflatten(-1, (-1, 6)).mT.clone()
        planar[..., [1, 4], :] -= 1
        return planar.flatten(-2)


@lru_cache(maxsize=4)
def _fused_mlp(cls: type) -> type:
    """A feed-forward network of both linears in one fused operation, which calls neither."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return double.fused_gelu_mlp(x.contiguous(), self.net[0].proj, self.net[2])

    return type("NunchakuFeedForward", (cls,), {"forward": forward})


class FusedSwiGlu(nn.Module):
    """``w2(silu(x1) * x3)`` with ``x3, x1`` from one layer."""

    w13: Any
    w2: Any

    def forward(self, x: Tensor) -> Tensor:
        """``[B, S, dim]``."""
        x3, x1 = self.w13(x).chunk(2, dim=-1)
        return self.w2(nn.functional.silu(x1) * x3)


def _prepare_block(block: Any) -> None:
    block.img_mod.__class__ = block.txt_mod.__class__ = Modulation
    block.img_mlp.__class__ = block.txt_mlp.__class__ = _fused_mlp(type(block.img_mlp))
    for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
        del block.attn._modules[name]
    block.attn.__class__ = _split_attention(type(block.attn))


@lru_cache(maxsize=4)
def _split_attention(cls: type) -> type:
    """Attention whose Q, K and V come out of one module, called as such, once each."""

    def third(fused: str, index: int) -> property:
        def get(self: Any) -> Any:
            return lambda x: self._modules[fused](x).chunk(3, dim=-1)[index]

        return property(get)

    names = {"to_q": ("to_qkv", 0), "to_k": ("to_qkv", 1), "to_v": ("to_qkv", 2)}
    names |= {f"add_{n}_proj": ("add_qkv_proj", i) for i, n in enumerate("qkv")}
    return type("NunchakuAttention", (cls,), {n: third(*where) for n, where in names.items()})


class _Packed(tuple):
    """Angles of the rotation as the kernel reads them, and nothing else can."""


def _pack_angles(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*args[:2], _Packed((args[2],)), *args[3:])


@lru_cache(maxsize=4)
def _fused_attention(cls: type) -> type:
    """Attention that reads the factors of its `qkv`, and never calls it.

    Its constructor is not that of the class it derives from, so it has no `qk_norm`.
    """

    class Uncalled(nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = [layer]

        def forward(self, x: Tensor) -> Tensor:
            rows = x.reshape(-1, x.shape[-1])
            layer = self.layer[0]
            y = layer.forward_quant(*layer.quantize(rows.contiguous()))[: len(rows)]
            return y.view(*x.shape[:-1], -1)

    def forward(self: Any, x: Tensor, mask: Any, angles: Any, *args: Any, **kwargs: Any) -> Any:
        assert isinstance(angles, _Packed), "the kernel reads packed angles"
        layer = self._modules["qkv"]
        self._modules["qkv"], self.qk_norm = Uncalled(layer), True
        try:
            return cls.forward(self, x, mask, angles[0], *args, **kwargs)
        finally:
            self._modules["qkv"] = layer
            del self.qk_norm

    return type("NunchakuZImageAttention", (cls,), {"forward": forward})


class _Running(nn.ModuleList):
    """Yields the block that runs in place of each: an offloaded one runs as a copy."""

    manager: Any

    def __iter__(self) -> Any:
        manager = self.__dict__.get("manager")
        if manager is None:
            yield from super().__iter__()
            return
        for index in range(len(self)):
            yield manager.get_block(index)
            manager.step()


@lru_cache(maxsize=4)
def _offloading(cls: type) -> type:
    def set_offload(self: Any, offload: bool, **options: Any) -> None:
        if offload == self.offload:
            return
        self.offload = offload
        blocks = self.transformer_blocks
        blocks.__class__ = _Running
        manager = None
        if offload:
            manager = double.CPUOffloadManager(list(nn.ModuleList.__iter__(blocks)), **options)
        self.__dict__["offload_manager"] = blocks.__dict__["manager"] = manager

    return type("NunchakuQwenImage", (cls,), {"set_offload": set_offload})


@lru_cache(maxsize=1)
def _patchers() -> tuple[type, type]:
    from comfy.model_patcher import ModelPatcher

    class NunchakuModelPatcher(ModelPatcher):
        """Moves the network, and knows nothing of patches."""

        def load(self, device_to: Any = None, *_: Any, **__: Any) -> None:
            with self.use_ejected():
                self.model.diffusion_model.to(device_to)

        def detach(self, unpatch_all: bool = True) -> None:
            self.eject_model()
            self.model.diffusion_model.to(self.offload_device)

    class ZImageModelPatcher(ModelPatcher):
        """Appends LoRAs of ComfyUI's own nodes to the quantized layers while it is loaded.

        `native`: module path -> down and up, in place of what ComfyUI's key map would find.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.svdq_backup: dict[str, Any] = {}
            self.native: dict[str, tuple[Tensor, Tensor]] = {}

        def clone(self, *args: Any, **kwargs: Any) -> Any:
            found: Any = super().clone(*args, **kwargs)
            found.svdq_backup, found.native = self.svdq_backup, dict(self.native)
            return found

        def add_native(self, path: str, down: Tensor, up: Tensor) -> None:
            self.native[path] = down, up
            self.patches_uuid = uuid4()

        def load(self, *args: Any, **kwargs: Any) -> None:
            super().load(*args, **kwargs)
            for path, (down, up) in self.native.items():
                layer = self.model.diffusion_model.get_submodule(path)
                if path not in self.svdq_backup:
                    self.svdq_backup[path] = (layer.proj_down, layer.proj_up)
                    double.append(layer, down, up)

        def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
            super().unpatch_model(device_to, unpatch_weights)
            if unpatch_weights:
                for path, (down, up) in self.svdq_backup.items():
                    layer = self.model.diffusion_model.get_submodule(path)
                    layer.proj_down, layer.proj_up = down, up
                self.svdq_backup.clear()

    return NunchakuModelPatcher, ZImageModelPatcher
