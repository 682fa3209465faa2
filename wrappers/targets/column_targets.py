"""Which layers of a model take LoRAs as more ranks, and what weights they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from ...lora.mapping.architecture import Architecture
from ...svdquant.convert import convert_awq, convert_svdq, planar_modulation
from ...svdquant.linears import SvdqLinear
from .column_kinds import KITCHEN, NUNCHAKU_AWQ, ColumnTarget, column_kind

Lookup = Callable[[str], Any]


def column_targets(architecture: Architecture, module: Lookup) -> dict[str, ColumnTarget]:
    """All layers that take more ranks, by canonical path or by the name of a fused layer.

    `module` returns the module at a path, or None.
    """
    found: dict[str, ColumnTarget] = {}
    taken: set[str] = set()
    for path, blocks in architecture.fusions.items():
        fused = module(path)
        kind = None if fused is None else column_kind(fused)
        rows = tuple((block.start, block.stop) for block in blocks)
        if kind is not None:
            found[path] = ColumnTarget(path, (fused,), ((0, rows[-1][1]),), kind)
            continue
        members = tuple(module(block.module) for block in blocks)
        if all(column_kind(member) is KITCHEN for member in members) and _share_input(members):
            found[path] = ColumnTarget(path, members, rows, KITCHEN)
            taken.update(block.module for block in blocks)
    for path, known in architecture.modules.items():
        layer = module(path) if known.kind == "linear" and path not in taken else None
        kind = None if layer is None else column_kind(layer)
        if kind is not None:
            found[path] = ColumnTarget(path, (layer,), ((0, known.shape[0]),), kind)
    return found


def dense_weight(target: ColumnTarget, rank: int) -> Tensor:
    """The weight ``[N, K]`` in float32 that a target stands for with its first `rank` ranks.

    Rows are in the original order: those of modulation layers are planar.

    Raises:
        ValueError: it is in a form that cannot be read back.
    """
    module = target.modules[0]
    if target.kind is KITCHEN:
        from ..svdquant.svdquant_ops import layer_of

        layers = [cast(SvdqLinear, layer_of(module)) for module in target.modules]
        if any(layer.weight.dim() != 2 for layer in layers):
            raise ValueError(f"DoRA cannot be applied to {target.path}, which is packed in tiles")
        parts = [layer.first_ranks(rank).dense() for layer in layers]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    tensors = {name: tensor.detach() for name, tensor in module.named_parameters()}
    if target.kind is NUNCHAKU_AWQ:
        return planar_modulation(convert_awq(tensors)).dense()
    return convert_svdq(tensors, act_unsigned=module.act_unsigned).first_ranks(rank).dense()


def _share_input(modules: tuple[Any, ...]) -> bool:
    """Whether layers divide and project their input alike, so that it can be quantized once."""
    first = modules[0].weight._params
    rest = [module.weight._params for module in modules[1:]]
    return all(
        torch.equal(first.smooth_factor, other.smooth_factor)
        and first.proj_down.shape == other.proj_down.shape
        and torch.equal(first.proj_down, other.proj_down)
        for other in rest
    )
