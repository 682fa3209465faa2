"""Layers with a low-rank branch of their own, to which ranks can be appended.

SVDQuant layers compute ``y = Q(x) W + (x down) up + bias``. A LoRA becomes more ranks of that
branch: it costs no further operation, and is there for fused operations too, which read the
factors but never call the layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ...lora.factors.fusion import interleave_rows
from ...svdquant.lowrank_packing import (
    append_lowrank,
    pack_lowrank,
    scale_lowrank_blocks,
    slice_lowrank,
)
from ...svdquant.packing import TILE
from ..svdquant.kitchen_weight import as_parameter

RANK_STEP = 16  # of the kernels; also bounds the number of work spaces that comfy-kitchen keeps


Scales = Tensor | float  # ``[r]``, or a number if it is the same for all ranks


class Stored(NamedTuple):
    """Appended factors at scale 1, laid out as the layers have them; an up for each module."""

    down: Tensor
    ups: list[Tensor]


class ColumnKind(Protocol):
    """How the factors of one kind of layer are laid out.

    `limit` is the most ranks that a layer may have, its own included. Modules come in groups that
    have the same input and one down factor (Q, K and V, say); most groups are of one.
    """

    limit: int | None

    # `append` and `cut` make all that is new before they change any module: where memory does not
    # suffice, each has what it had.

    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        """The down and up factor as stored; both are other tensors after any change."""
        ...

    def rank_of(self, module: Any) -> int:
        """Ranks that the layer has now."""
        ...

    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Stored:
        """Add ranks, down ``[r, K]`` and an up ``[N, r]`` for each module, in the layers' dtype."""
        ...

    def rescale_down(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        """Write `stored` (of `append`, at scale 1) times `scales` over ranks of down."""
        ...

    def rescale_up(self, module: Any, start: int, stored: Tensor, scales: Scales) -> None:
        """The same for up."""
        ...

    def cut(self, modules: Sequence[Any], rank: int) -> None:
        """Leave the first `rank` ranks, bit for bit as they were."""
        ...


class Nunchaku:
    """``SVDQW4A4Linear`` of the nunchaku package: factors packed in blocks of 16 x 16."""

    limit: int | None = 1024

    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        return module.proj_down, module.proj_up

    def rank_of(self, module: Any) -> int:
        return module.proj_up.shape[1]

    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Stored:
        stored = [pack_lowrank(up, down=False) for up in ups]
        packed = pack_lowrank(down, down=True)
        longer = [
            (
                append_lowrank(module.proj_down.detach(), packed),
                append_lowrank(module.proj_up.detach(), up),
            )
            for module, up in zip(modules, stored, strict=True)
        ]
        _set_packed(modules, longer)
        return Stored(packed, stored)

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
        _set_packed(modules, shorter)


def _set_packed(modules: Sequence[Any], factors: Sequence[tuple[Tensor, Tensor]]) -> None:
    for module, (down, up) in zip(modules, factors, strict=True):
        module.proj_down = torch.nn.Parameter(down, requires_grad=False)
        module.proj_up = torch.nn.Parameter(up, requires_grad=False)
        module.rank = up.shape[1]


class Kitchen:
    """A weight in comfy-kitchen's SVDQuant layout, natural or tile-packed.

    down is ``[K, R]``, up ``[N, R]`` or, tile-packed, ``[N/128, R, 128]``; kernels read both as
    contiguous memory. Layers with equal down factors can share their quantized input; so all
    modules of a group get equal ones again.
    """

    limit: int | None = None

    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        params = module.weight._params
        return params.proj_down, params.proj_up

    def rank_of(self, module: Any) -> int:
        return module.weight._params.proj_down.shape[1]

    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Stored:
        columns = down.t().contiguous()
        joined = torch.cat([self.factors(modules[0])[0], columns], 1)
        stored, longer = [], []
        for module, up in zip(modules, ups, strict=True):
            base = self.factors(module)[1]
            tiles = up if base.dim() == 2 else up.reshape(-1, TILE, up.shape[1]).mT.contiguous()
            stored.append(tiles)
            longer.append(_with_params(module, joined, torch.cat([base, tiles], 1)))
        _set_weights(modules, longer)
        return Stored(columns, stored)

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
            _with_params(module, down, self.factors(module)[1][:, :rank].contiguous())
            for module in modules
        ]
        _set_weights(modules, shorter)


def _with_params(module: Any, down: Tensor, up: Tensor) -> torch.nn.Parameter:
    """The weight of a module with other factors."""
    weight = module.weight
    params = dataclasses.replace(weight._params, proj_down=down, proj_up=up)
    return as_parameter(type(weight)(weight._qdata, weight._layout_cls, params))


def _set_weights(modules: Sequence[Any], weights: Sequence[torch.nn.Parameter]) -> None:
    for module, weight in zip(modules, weights, strict=True):
        module.weight = weight


class NunchakuAwq:
    """``AWQW4A16Linear`` of the nunchaku package, which has no low-rank branch of its own.

    It gets one: two buffers, so that they follow where Nunchaku's CPU offload copies a block, and
    a subclass with a `__call__` that adds them. Rows are interleaved as the layer's own.
    """

    limit: int | None = None

    def factors(self, module: Any) -> tuple[Tensor, Tensor]:
        buffers = module._buffers
        return module.wscales, buffers.get(_UP, module.wscales)

    def rank_of(self, module: Any) -> int:
        up = module._buffers.get(_UP)
        return 0 if up is None else up.shape[1]

    def append(self, modules: Sequence[Any], down: Tensor, ups: Sequence[Tensor]) -> Stored:
        stored = [interleave_rows(up) for up in ups]
        copies = [(down.clone(), up.clone()) for up in stored]
        for module, (own_down, own_up) in zip(modules, copies, strict=True):
            module.register_buffer(_DOWN, own_down, persistent=False)
            module.register_buffer(_UP, own_up, persistent=False)
            module.__class__ = _with_factors(type(module))
        return Stored(down, stored)

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


_DOWN, _UP = "vivace_down", "vivace_up"


@lru_cache(maxsize=8)
def _with_factors(cls: type) -> type:
    def __call__(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: N807
        y = cls.__call__(self, x, *args, **kwargs)
        inner = functional.linear(x, self._buffers[_DOWN].to(x.dtype))
        return y + functional.linear(inner, self._buffers[_UP].to(x.dtype))

    return type(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})


NUNCHAKU, NUNCHAKU_AWQ, KITCHEN = Nunchaku(), NunchakuAwq(), Kitchen()


@dataclass(frozen=True, eq=False)
class ColumnTarget:
    """Layers with the same input, and the rows of the fused output that each computes."""

    path: str
    modules: tuple[Any, ...]
    rows: tuple[tuple[int, int], ...]
    kind: ColumnKind

    @property
    def scales_down(self) -> bool:
        """Whether strengths go into down, which has fewer channels, so that less is written."""
        return self.modules[0].in_features * len(self.modules) < self.rows[-1][1]

    @property
    def rank(self) -> int:
        """Ranks that the layers have now."""
        return self.kind.rank_of(self.modules[0])

    def room(self, base: int) -> int | None:
        """Ranks that can be added to `base`; None if there is no limit."""
        return None if self.kind.limit is None else self.kind.limit - base


def column_kind(module: Any) -> ColumnKind | None:
    """How ranks are appended to a layer; None if it takes none."""
    if is_nunchaku_svdq(module):
        return NUNCHAKU
    if is_nunchaku_awq(module):
        return NUNCHAKU_AWQ
    weight = getattr(module, "weight", None)
    params = getattr(weight, "_params", None)
    if params is not None and hasattr(params, "proj_down") and hasattr(params, "proj_up"):
        return KITCHEN
    return None


def is_nunchaku_svdq(module: Any) -> bool:
    """Whether a layer is one of nunchaku's SVDQuant layers, by what it has."""
    names = ("qweight", "wscales", "proj_down", "proj_up", "smooth_factor")
    return all(hasattr(module, name) for name in names)


def is_nunchaku_awq(module: Any) -> bool:
    """Whether a layer is one of nunchaku's 4-bit modulation layers, by what it has."""
    return hasattr(module, "qweight") and hasattr(module, "wzeros")
