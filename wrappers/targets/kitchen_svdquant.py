"""Layers with a weight in comfy-kitchen's SVDQuant layout, natural or tile-packed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...svdquant.linears import SvdqLinear
from ...svdquant.packing import TILE
from ..svdquant.kernels import forget_workspaces
from ..svdquant.kitchen_weight import as_parameter
from .rank_kind import Appended, RankKind, Scales
from .weight_kind import UnreadableWeightError


class KitchenSvdquant(RankKind):
    """down is ``[K, R]``, up ``[N, R]`` or, tile-packed, ``[N/128, R, 128]``.

    Kernels read both as contiguous memory. Layers with equal down factors can share their quantized
    input; so all modules of a group get equal ones again.
    """

    def recognises(self, module: Any) -> bool:
        params = getattr(getattr(module, "weight", None), "_params", None)
        return hasattr(params, "proj_down") and hasattr(params, "proj_up")

    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        params = module.weight._params
        return params.proj_down, params.proj_up

    def rank_of(self, module: Any) -> int:
        return module.weight._params.proj_down.shape[1]

    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Appended:
        columns = down.t().contiguous()
        joined = torch.cat([self.factors(modules[0])[0], columns], 1)
        stored, longer = [], []
        for module, up in zip(modules, ups, strict=True):
            base = self.factors(module)[1]
            tiles = up if base.dim() == 2 else up.reshape(-1, TILE, up.shape[1]).mT.contiguous()
            stored.append(tiles)
            longer.append(_with_factors(module, joined, torch.cat([base, tiles], 1)))
        _set_weights(modules, longer)
        return Appended(columns, stored)

    def rescale_down(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        down = module.weight._params.proj_down
        torch.mul(stored, scales, out=down[:, start : start + stored.shape[1]])

    def rescale_up(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        up = module.weight._params.proj_up
        if isinstance(scales, Tensor) and up.dim() == 3:
            scales = scales[:, None]
        torch.mul(stored, scales, out=up[:, start : start + stored.shape[1]])

    def cut(self, modules: Sequence[Any], rank: int) -> None:
        down = self.factors(modules[0])[0][:, :rank].contiguous()
        shorter = [
            _with_factors(module, down, self.factors(module)[1][:, :rank].contiguous())
            for module in modules
        ]
        _set_weights(modules, shorter)

    def dense(self, module: Any, rank: int, device: torch.device | None = None) -> Tensor:
        from ..svdquant.svdquant_ops import layer_of

        if reason := self.unreadable(module):
            raise UnreadableWeightError(reason)
        layer = cast(SvdqLinear, layer_of(module)).first_ranks(rank)
        return layer.to(device).dense()

    def unreadable(self, module: Any) -> str | None:
        if module.weight._qdata.dim() == 2:
            return None
        return "a weight that is packed in tiles is not read back"

    def share_input(self, modules: Sequence[Any]) -> bool:
        first = modules[0].weight._params
        return all(
            torch.equal(first.smooth_factor, other.smooth_factor)
            and first.proj_down.shape == other.proj_down.shape
            and torch.equal(first.proj_down, other.proj_down)
            for other in (module.weight._params for module in modules[1:])
        )


def _with_factors(module: Any, down: Tensor, up: Tensor) -> torch.nn.Parameter:
    """The weight of a module with other factors."""
    weight = module.weight
    params = dataclasses.replace(weight._params, proj_down=down, proj_up=up)
    return as_parameter(type(weight)(weight._qdata, weight._layout_cls, params))


def _set_weights(modules: Sequence[Any], weights: Sequence[torch.nn.Parameter]) -> None:
    for module, weight in zip(modules, weights, strict=True):
        module.weight = weight
    forget_workspaces()
