"""``AWQW4A16Linear`` of the nunchaku package: the 4-bit modulation layers of Qwen-Image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...lora.factors.branch import Branch
from ...lora.factors.fusion import interleave_rows
from ...svdquant.convert import (
    MODULATION_CHUNKS,
    SCALE_CHUNKS,
    convert_awq,
    planar,
    planar_modulation,
)
from .branch_layer import BranchLayer
from .rank_kind import Appended, RankKind, Scales

_DOWN, _UP = "vivace_down", "vivace_up"


class NunchakuAwq(RankKind):
    """It has no low-rank branch of its own, and gets one.

    Two buffers, so that they follow where Nunchaku's CPU offload copies a block, and a subclass
    with a `__call__` that adds them. Rows are interleaved as the layer's own: ``[dim, 6]``.
    """

    def recognises(self, module: Any) -> bool:
        return hasattr(module, "qweight") and hasattr(module, "wzeros")

    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        return module.wscales, module._buffers.get(_UP, module.wscales)

    def rank_of(self, module: Any) -> int:
        up = module._buffers.get(_UP)
        return 0 if up is None else up.shape[1]

    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Appended:
        stored = [interleave_rows(up) for up in ups]
        copies = [(down.clone(), up.clone()) for up in stored]
        for module, (own_down, own_up) in zip(modules, copies, strict=True):
            module.register_buffer(_DOWN, own_down, persistent=False)
            module.register_buffer(_UP, own_up, persistent=False)
            module.__class__ = _with_factors(type(module))
        return Appended(down, stored)

    def rescale_down(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        if isinstance(scales, Tensor):
            scales = scales[:, None]
        torch.mul(stored, scales, out=module._buffers[_DOWN])

    def rescale_up(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        torch.mul(stored, scales, out=module._buffers[_UP])

    def cut(self, modules: Sequence[Any], rank: int) -> None:
        for module in modules:
            module.__class__ = type(module).__base__
            del module._buffers[_DOWN], module._buffers[_UP]
            module._non_persistent_buffers_set -= {_DOWN, _UP}

    def dense(self, module: Any, rank: int, device: torch.device | None = None) -> Tensor:
        tensors = {n: tensor.detach().to(device=device) for n, tensor in module.named_parameters()}
        return planar_modulation(convert_awq(tensors)).dense()

    def beside(self, module: Any, branch: Branch) -> BranchLayer:
        return _InterleavedLayer(branch)


class _InterleavedLayer(BranchLayer):
    """The branch of a layer whose rows are ``[dim, 6]``, not ``[6, dim]``."""

    def bias(self, module: Any) -> Tensor | None:
        return None if module.bias is None else planar(module.bias.detach())

    def original_bias(self, module: Any) -> Tensor | None:
        bias = self.bias(module)
        if bias is None:
            return None
        chunks = bias.unflatten(0, (MODULATION_CHUNKS, -1)).clone()
        chunks[list(SCALE_CHUNKS)] -= 1  # which the original's block adds itself
        return chunks.flatten()

    def output(self, y: Tensor) -> Tensor:
        return planar(y)

    def __call__(self, x: Tensor, y: Tensor, module: Any) -> Tensor:
        changed = super().__call__(x, planar(y), module)
        return changed.unflatten(-1, (MODULATION_CHUNKS, -1)).mT.flatten(-2)


@lru_cache(maxsize=8)
def _with_factors(cls: type) -> type:
    def __call__(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: N807
        y = cls.__call__(self, x, *args, **kwargs)
        inner = functional.linear(x, self._buffers[_DOWN].to(x.dtype))
        return y + functional.linear(inner, self._buffers[_UP].to(x.dtype))

    return type(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})
