"""``SVDQW4A4Linear`` of the nunchaku package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...lora.factors.branch import Branch
from ...svdquant.convert import convert_svdq
from ...svdquant.lowrank_packing import (
    append_lowrank,
    pack_lowrank,
    scale_lowrank_blocks,
    slice_lowrank,
)
from ...svdquant.packing import unpack_vector
from .branch_layer import BranchLayer
from .layered_class import Layer
from .nunchaku_fused import Unfused, UnsignedLayer, fused_parent, stock_class
from .rank_kind import Appended, RankKind, Scales
from .weight_kind import Lookup

_ATTRIBUTES = ("qweight", "wscales", "proj_down", "proj_up", "smooth_factor")


class NunchakuSvdq(RankKind):
    """Factors packed in blocks of 16 x 16; fused operations read them without calling the layer."""

    limit = 1024

    def recognises(self, module: Any) -> bool:
        return all(hasattr(module, name) for name in _ATTRIBUTES)

    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        return module.proj_down, module.proj_up

    def rank_of(self, module: Any) -> int:
        return module.proj_up.shape[1]

    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Appended:
        stored = [pack_lowrank(up, down=False) for up in ups]
        packed = pack_lowrank(down, down=True)
        longer = [
            (
                append_lowrank(module.proj_down.detach(), packed),
                append_lowrank(module.proj_up.detach(), up),
            )
            for module, up in zip(modules, stored, strict=True)
        ]
        _set_factors(modules, longer)
        return Appended(packed, stored)

    def rescale_down(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        scale_lowrank_blocks(module.proj_down.data, start, scales, stored, down=True)

    def rescale_up(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        scale_lowrank_blocks(module.proj_up.data, start, scales, stored)

    def cut(self, modules: Sequence[Any], rank: int) -> None:
        shorter = [
            (
                slice_lowrank(module.proj_down.detach(), 0, rank),
                slice_lowrank(module.proj_up.detach(), 0, rank),
            )
            for module in modules
        ]
        _set_factors(modules, shorter)

    def dense(self, module: Any, rank: int, device: torch.device | None = None) -> Tensor:
        tensors = {n: tensor.detach().to(device=device) for n, tensor in module.named_parameters()}
        return convert_svdq(tensors, act_unsigned=module.act_unsigned).first_ranks(rank).dense()

    def beside(self, module: Any, branch: Branch) -> BranchLayer:
        return (UnsignedLayer if module.act_unsigned else _PackedBiasLayer)(branch)

    def companions(self, path: str, module: Lookup) -> Mapping[str, Layer]:
        parent = fused_parent(path)
        if parent is None:
            return {}
        second = f"{parent}.net.2"
        found: dict[str, Layer] = {parent: Unfused()}
        if getattr(module(second), "act_unsigned", False):
            found[second] = UnsignedLayer()
        return found

    def only_ranks(self, path: str, module: Lookup) -> bool:
        parent = fused_parent(path)
        return parent is not None and stock_class(module(parent)) is None


class _PackedBiasLayer(BranchLayer):
    """The branch of a layer whose bias is stored in the order of the kernels."""

    def bias(self, module: Any) -> Tensor | None:
        return None if module.bias is None else unpack_vector(module.bias.detach())


def _set_factors(modules: Sequence[Any], factors: Sequence[tuple[Tensor, Tensor]]) -> None:
    for module, (down, up) in zip(modules, factors, strict=True):
        module.proj_down = torch.nn.Parameter(down, requires_grad=False)
        module.proj_up = torch.nn.Parameter(up, requires_grad=False)
        module.rank = up.shape[1]
