"""One quantized layer of a Nunchaku checkpoint -> the tensors that comfy-kitchen computes with.

No value is quantized again: weights, scales and factors change place, and two vectors change by a
constant that moves between terms of the same formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

import torch
from torch import Tensor

from .layers import AWQ_TENSORS, GROUP, NVFP4_TENSORS, SVDQ_TENSORS, UNUSED_TENSORS
from .linears import AwqLinear, SvdqLinear
from .lowrank_packing import unpack_lowrank
from .packing import awq_qweight_rows, qweight_rows, unpack_scales, unpack_vector

# The order of the six chunks of a modulation: shift, scale, gate, shift, scale, gate.
MODULATION_CHUNKS = 6
SCALE_CHUNKS = (1, 4)


def convert_svdq(tensors: Mapping[str, Tensor], *, act_unsigned: bool = False) -> SvdqLinear:
    """Convert the tensors of an ``SVDQW4A4Linear``, named as in its state_dict.

    Args:
        tensors: `SVDQ_TENSORS` and, if the layer has one, ``bias``; `UNUSED_TENSORS` are accepted
            and dropped.
        act_unsigned: what the layer's input is (see `SvdqLinear`); the tensors do not tell.

    Raises:
        ValueError: an nvfp4 layer; tensors missing, unknown, or of shapes or dtypes that do not
            fit together.
    """
    _check_names(tensors, SVDQ_TENSORS)
    bias = tensors.get("bias")
    weight = qweight_rows(tensors["qweight"])
    n, k = weight.shape[0], weight.shape[1] * 2
    rank = tensors["proj_down"].shape[-1]
    dtype = tensors["wscales"].dtype
    shapes = {
        "wscales": (k // GROUP, n),
        "smooth_factor": (k,),
        "proj_down": (k, rank),
        "proj_up": (n, rank),
        "bias": (n,),
    }
    _check_tensors(tensors, shapes, dtype)
    down = unpack_lowrank(tensors["proj_down"], down=True)
    return SvdqLinear(
        weight=weight,
        scale=unpack_scales(tensors["wscales"]),
        proj_down=down.t().contiguous(),
        proj_up=unpack_lowrank(tensors["proj_up"], down=False),
        smooth_factor=unpack_vector(tensors["smooth_factor"]),
        bias=None if bias is None else unpack_vector(bias),
        act_unsigned=act_unsigned,
    )


def convert_awq(tensors: Mapping[str, Tensor]) -> AwqLinear:
    """Convert the tensors of an ``AWQW4A16Linear``, named as in its state_dict.

    Nunchaku's formula is ``W = q * scale + wzeros``, comfy-kitchen's
    ``(q - 8) * scale + zeros``, so ``zeros = wzeros + 8 * scale``, summed in float32. Where wzeros
    is ``-7 * scale`` rounded, as Nunchaku's quantizer writes it, the sum is exact in 16 bits too:
    both terms are multiples of four units in the last place of `scale`, which the sum is about as
    large as.

    Raises:
        ValueError: tensors missing, unknown, or of shapes or dtypes that do not fit together.
    """
    _check_names(tensors, AWQ_TENSORS)
    weight = awq_qweight_rows(tensors["qweight"])
    n, k = weight.shape[0], weight.shape[1] * 2
    scale, wzeros = tensors["wscales"], tensors["wzeros"]
    shapes = {"wscales": (k // GROUP, n), "wzeros": (k // GROUP, n), "bias": (n,)}
    _check_tensors(tensors, shapes, scale.dtype)
    zeros = (wzeros.float() + 8 * scale.float()).to(scale.dtype)
    bias = tensors.get("bias")
    return AwqLinear(
        weight,
        scale.clone(memory_format=torch.contiguous_format),
        zeros.contiguous(),
        None if bias is None else bias.clone(),
    )


def planar_modulation(linear: AwqLinear) -> AwqLinear:
    """Turn a modulation layer of Nunchaku's Qwen-Image into one of the original model.

    Nunchaku's output ``d * 6 + c`` is the original's ``c * dim + d``; and 1 has been added to the
    bias of its scales, chunks 1 and 4, which the original's block adds itself. Where the bias is
    in 16 bits, taking the 1 out may round by half a unit in its last place.

    Raises:
        ValueError: the outputs are not six equal chunks, or there is no bias.
    """
    n = linear.shape[0]
    if n % MODULATION_CHUNKS:
        raise ValueError(f"{n} outputs are not {MODULATION_CHUNKS} equal chunks of a modulation")
    if linear.bias is None:
        raise ValueError("a modulation without a bias")
    bias = planar(linear.bias).float().view(MODULATION_CHUNKS, -1)
    bias[list(SCALE_CHUNKS)] -= 1
    return replace(
        linear,
        weight=linear.weight.unflatten(0, (-1, MODULATION_CHUNKS)).transpose(0, 1).flatten(0, 1),
        scale=planar(linear.scale),
        zeros=planar(linear.zeros),
        bias=bias.view(-1).to(linear.bias.dtype),
    )


def planar(columns: Tensor) -> Tensor:
    """Reorder the last dimension from ``[dim, 6]`` to ``[6, dim]``."""
    return columns.unflatten(-1, (-1, MODULATION_CHUNKS)).mT.flatten(-2)


def _check_names(tensors: Mapping[str, Tensor], needed: Set[str]) -> None:
    if found := sorted(NVFP4_TENSORS & tensors.keys()):
        raise ValueError(f"an nvfp4 layer (it has {found[0]}); int4 is supported")
    if missing := sorted(needed - tensors.keys()):
        raise ValueError(f"the layer has no {', '.join(missing)}")
    if unknown := sorted(tensors.keys() - needed - UNUSED_TENSORS - {"bias"}):
        raise ValueError(f"the layer has an unknown {', '.join(unknown)}")


def _check_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype
) -> None:
    if not dtype.is_floating_point or dtype.itemsize not in (2, 4):
        raise ValueError(f"scales in {dtype}; int4 layers have them in 16 or 32 bits")
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tensor.shape != shape:
            wanted = f"{list(shape)} with a weight of {list(tensors['qweight'].shape)}"
            raise ValueError(f"{name} has the shape {list(tensor.shape)}, not {wanted}")
        if tensor.dtype != dtype:
            raise ValueError(f"{name} is in {tensor.dtype}, but wscales in {dtype}")
