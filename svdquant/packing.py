"""Nunchaku's tensor layouts, unpacked in closed form.

The kernels read weights in the order of the lanes of a matrix instruction. Every layout is a
permutation of fixed small tiles, written here as one reshape, permute and reshape; nothing is
computed, so all of it is bit-exact, keeps the dtype, and runs on any device. N is the number of
outputs of a layer, K of inputs. Low-rank factors are in `lowrank_packing.py`.

Source: ``nunchaku/lora/flux/packer.py`` and ``nunchaku/models/text_encoders/tinychat_utils.py`` of
Nunchaku 1.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import GROUP
from .tiles import fours, pairs, refuse, sides

TILE = 128  # outputs in a tile of weights and scales


def unpack_nibbles(data: Tensor, *, signed: bool) -> Tensor:
    """Unpack int8 ``[..., K/2]`` into int8 ``[..., K]``: -8..7 if `signed`, else 0..15.

    Raises:
        ValueError: the data is not int8.
    """
    if data.dtype != torch.int8:
        raise ValueError(f"expected nibbles in int8, not {data.dtype}")
    bits = data.view(torch.uint8)
    both = torch.stack([bits & 15, bits >> 4], -1).flatten(-2).view(torch.int8)
    # Flipping the sign bit maps 0..7, 8..15 to 8..15, 0..7; then 8 too much for either.
    return (both ^ 8) - 8 if signed else both


def qweight_rows(qweight: Tensor) -> Tensor:
    """Unpack an int4 weight, int8 ``[N, K/2]``, into rows of nibbles, int8 ``[N, K/2]``.

    Pairs of neighbouring inputs share a byte in both layouts, so only bytes move. The result is
    what comfy-kitchen stores: low nibble for even k, two's complement.

    Raises:
        ValueError: wrong dtype, or N or K is no multiple of 128.
    """
    n, k = _weight_sides(qweight)
    # n = 128*t + 16*a + 8*b + c, byte of k = 32*u + 16*d + 4*e + f,
    # stored in the order (t, u, a, c, e, b, d, f).
    tiles = fours(qweight).reshape(n // TILE, k // 64, 8, 8, 4, 2, 2)
    return tiles.permute(0, 2, 5, 3, 1, 6, 4).reshape(n, k // 8).view(torch.int8)


def unpack_scales(packed: Tensor) -> Tensor:
    """Unpack the scales of an int4 weight ``[K/64, N]`` into scales ``[K/64, N]`` in plain order.

    The shape is the same, the order of elements is not, and not by rows either: in memory the
    packed scales are ``[N/128, K/64, 128]``, so rows of N > 128 are not rows of the result.

    Raises:
        ValueError: not a matrix, or N is no multiple of 128.
    """
    groups, n = sides(packed, "scales", 1, TILE)
    # n = 128*t + 16*a + 8*b + 2*c + d, stored in the order (t, group, a, c, b, d).
    tiles = pairs(packed).reshape(n // TILE, groups, 8, 4, 2)
    return tiles.permute(1, 0, 2, 4, 3).reshape(groups, n // 2).view(packed.dtype)


def unpack_vector(packed: Tensor) -> Tensor:
    """Unpack a vector over channels ``[C]``: a bias, smoothing factor or channel scale.

    Raises:
        ValueError: not a vector, or C is no multiple of 128.
    """
    if packed.dim() != 1:
        refuse("a vector", packed)
    return unpack_scales(packed[None])[0]


def awq_qweight_rows(qweight: Tensor) -> Tensor:
    """Unpack an AWQ weight, int32 ``[N/4, K/2]``, into rows of nibbles, int8 ``[N, K/2]``.

    The result is what comfy-kitchen stores: low nibble for even k, values 0..15.

    Raises:
        ValueError: wrong dtype, or K is no multiple of 64.
    """
    quarter, half = sides(qweight, "an AWQ weight", 1, GROUP // 2)
    if qweight.dtype != torch.int32:
        raise ValueError(f"expected an AWQ weight in int32, not {qweight.dtype}")
    # A 16-bit word j holds k = 8*i + j for i = 0..3, from the low nibble up; 32 inputs are 8 words.
    # Four rows interleave by 16 words. A byte of the result takes nibbles of two words, j and j+1.
    words = qweight.contiguous().view(torch.int16).view(quarter, half // 32, 4, 2, 4, 2)
    even, odd = (part.transpose(1, 2).contiguous().view(torch.uint8) for part in words.unbind(-1))
    low, high = (even & 15) | (odd << 4), (even >> 4) | (odd & 240)  # i = 0, 2 and i = 1, 3
    both = torch.stack([low, high], -1).view(quarter, 4, half // 32, 2, 4, 4)
    return both.transpose(-1, -2).reshape(quarter * 4, half).view(torch.int8)


def _weight_sides(weight: Tensor) -> tuple[int, int]:
    n, half = sides(weight, "an int4 weight", TILE, TILE // 2)
    if weight.dtype != torch.int8:
        raise ValueError(f"expected an int4 weight in int8, not {weight.dtype}")
    return n, half * 2
