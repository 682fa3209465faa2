"""Nunchaku's tensor layouts, packed and unpacked in closed form.

The kernels read weights in the order of the lanes of a matrix instruction. Every layout is a
permutation of fixed small tiles, written here as one reshape, permute and reshape; nothing is
computed, so all of it is bit-exact, keeps the dtype, and runs on any device. N is the number of
outputs of a layer, K of inputs, R the rank of its low-rank branch, C either N or K.

Source: ``nunchaku/lora/flux/packer.py`` and ``nunchaku/models/text_encoders/tinychat_utils.py`` of
Nunchaku 1.3.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from .layers import GROUP

TILE = 128  # outputs in a tile of weights and scales
BLOCK = 16  # channels and ranks in a block of a low-rank factor


def pack_lowrank(weight: Tensor, *, down: bool) -> Tensor:
    """Pack a low-rank factor: down ``[R, K]`` to ``[K, R]``, up ``[N, R]`` to ``[N, R]``.

    The result is a sequence of 16x16 blocks, ordered by channel block, then rank block. So its
    columns are *not* ranks: use the functions below to append, cut and scale.

    Raises:
        ValueError: not a matrix, or a side is no multiple of 16.
    """
    rows, columns = _sides(weight, "a low-rank factor", BLOCK, BLOCK)
    # Within a block: row = 8*a + b, column = 8*c + 2*d + e, stored in the order (b, d, a, c, e).
    tiles = _pairs(weight).reshape(rows // BLOCK, 2, 8, columns // BLOCK, 2, 4)
    order = (3, 0, 2, 5, 1, 4) if down else (0, 3, 2, 5, 1, 4)
    packed = tiles.permute(order).reshape(-1).view(weight.dtype)
    return packed.view(columns, rows) if down else packed.view(rows, columns)


def unpack_lowrank(packed: Tensor, *, down: bool) -> Tensor:
    """Unpack a low-rank factor: ``[K, R]`` to down ``[R, K]``, or ``[N, R]`` to up ``[N, R]``.

    Raises:
        ValueError: not a matrix, or a side is no multiple of 16.
    """
    channels, rank = _sides(packed, "a packed low-rank factor", BLOCK, BLOCK)
    tiles = _pairs(packed).reshape(channels // BLOCK, rank // BLOCK, 8, 4, 2, 2)
    order = (1, 4, 2, 0, 5, 3) if down else (0, 4, 2, 1, 5, 3)
    logical = tiles.permute(order).reshape(-1).view(packed.dtype)
    return logical.view(rank, channels) if down else logical.view(channels, rank)


def append_lowrank(base: Tensor, extra: Tensor) -> Tensor:
    """Return packed `base` ``[C, R]`` with the ranks of packed `extra` ``[C, r]`` behind its own.

    Equals packing the concatenation of the unpacked factors, without unpacking either. (The
    concatenation of the packed tensors along dim 1 is something else, and wrong.)

    Raises:
        ValueError: sides are no multiples of 16, or channels, dtypes or devices differ.
    """
    blocks, more = _blocks(base), _blocks(extra)
    for what, one, other in (
        ("channels", base.shape[0], extra.shape[0]),
        ("dtype", base.dtype, extra.dtype),
        ("device", base.device, extra.device),
    ):
        if one != other:
            raise ValueError(f"{what} of the factors differ: {one} and {other}")
    return torch.cat([blocks, more], 1).reshape(base.shape[0], -1)


def slice_lowrank(packed: Tensor, start: int, stop: int) -> Tensor:
    """Return ranks ``start:stop`` of a packed factor ``[C, R]``, as a contiguous copy.

    ``slice_lowrank(append_lowrank(base, extra), 0, base.shape[1])`` is `base`, bit for bit.

    Raises:
        ValueError: a side, `start` or `stop` is no multiple of 16, or the range is not in the rank.
    """
    blocks = _blocks(packed)
    _range(packed, start, stop)
    chosen = blocks[:, start // BLOCK : stop // BLOCK]
    return chosen.clone(memory_format=torch.contiguous_format).view(-1, stop - start)


def scale_lowrank_blocks(
    packed: Tensor,
    start: int,
    factors: float | Tensor,
    source: Tensor | None = None,
    *,
    down: bool = False,
) -> None:
    """Write `source` times `factors` over the ranks of packed `packed` from `start` on, in place.

    Args:
        packed: a factor ``[C, R]``. Ranks before `start`, and behind those written, stay as they
            are, bit for bit.
        start: first rank to write, a multiple of 16.
        factors: one number, or a vector with one number per rank.
        source: the packed values at factor 1, ``[C, r]``, in any float dtype. Scaling from it
            again and again does not drift. Without it, the ranks from `start` to the end are
            multiplied where they are.
        down: whether it is a down factor; matters for a vector only.

    Raises:
        ValueError: wrong shapes or ranges, or `packed` is not contiguous, so that writing to its
            blocks would not change it.
    """
    blocks = _blocks(packed)
    if not packed.is_contiguous():
        raise ValueError("the factor to write to is not contiguous")
    ranks = packed.shape[1] - start if source is None else source.shape[1]
    _range(packed, start, start + ranks)
    chosen = blocks[:, start // BLOCK : (start + ranks) // BLOCK]
    values = chosen if source is None else _blocks(source)
    if values.shape != chosen.shape:
        channels = values.shape[0] * BLOCK
        raise ValueError(f"a source of {channels} channels for a factor of {packed.shape[0]}")
    if isinstance(factors, Tensor):
        factors = _per_rank(factors, ranks, down)
    if values.dtype == chosen.dtype and values.device == chosen.device:
        torch.mul(values, factors, out=chosen)  # rounds once: torch multiplies in float32 or wider
        return
    wide = torch.promote_types(values.dtype, torch.float32)
    chosen.copy_(values.to(wide) * factors)


def pack_nibbles(values: Tensor) -> Tensor:
    """Pack 4-bit integers ``[..., K]`` into int8 ``[..., K/2]``; even k is the low nibble.

    Takes -8..7 or 0..15, whose bits are the same modulo 16.

    Raises:
        ValueError: K is odd.
    """
    if values.shape[-1] % 2:
        raise ValueError(f"{values.shape[-1]} values do not fill whole bytes")
    bits = values.to(torch.uint8) & 15
    return (bits[..., 0::2] | (bits[..., 1::2] << 4)).view(torch.int8)


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
    tiles = _fours(qweight).reshape(n // TILE, k // 64, 8, 8, 4, 2, 2)
    return tiles.permute(0, 2, 5, 3, 1, 6, 4).reshape(n, k // 8).view(torch.int8)


def pack_qweight_rows(rows: Tensor) -> Tensor:
    """Pack rows of nibbles, int8 ``[N, K/2]``, as Nunchaku does; undoes `qweight_rows`.

    Raises:
        ValueError: wrong dtype, or N or K is no multiple of 128.
    """
    n, k = _weight_sides(rows)
    tiles = _fours(rows).reshape(n // TILE, 8, 2, 8, k // 64, 2, 4)
    return tiles.permute(0, 4, 1, 3, 6, 2, 5).reshape(n, k // 8).view(torch.int8)


def unpack_qweight(qweight: Tensor) -> Tensor:
    """Unpack an int4 weight, int8 ``[N, K/2]``, into integers -8..7, int8 ``[N, K]``.

    Raises:
        ValueError: wrong dtype, or N or K is no multiple of 128.
    """
    return unpack_nibbles(qweight_rows(qweight), signed=True)


def pack_qweight(values: Tensor) -> Tensor:
    """Pack integers -8..7 ``[N, K]`` into an int4 weight, int8 ``[N, K/2]``.

    Raises:
        ValueError: N or K is no multiple of 128.
    """
    return pack_qweight_rows(pack_nibbles(values))


def unpack_scales(packed: Tensor) -> Tensor:
    """Unpack the scales of an int4 weight ``[K/64, N]`` into scales ``[K/64, N]`` in plain order.

    The shape is the same, the order of elements is not, and not by rows either: in memory the
    packed scales are ``[N/128, K/64, 128]``, so rows of N > 128 are not rows of the result.

    Raises:
        ValueError: not a matrix, or N is no multiple of 128.
    """
    groups, n = _sides(packed, "scales", 1, TILE)
    # n = 128*t + 16*a + 8*b + 2*c + d, stored in the order (t, group, a, c, b, d).
    tiles = _pairs(packed).reshape(n // TILE, groups, 8, 4, 2)
    return tiles.permute(1, 0, 2, 4, 3).reshape(groups, n // 2).view(packed.dtype)


def pack_scales(scales: Tensor) -> Tensor:
    """Pack scales ``[K/64, N]``; undoes `unpack_scales`.

    Raises:
        ValueError: not a matrix, or N is no multiple of 128.
    """
    groups, n = _sides(scales, "scales", 1, TILE)
    tiles = _pairs(scales).reshape(groups, n // TILE, 8, 2, 4)
    return tiles.permute(1, 0, 2, 4, 3).reshape(groups, n // 2).view(scales.dtype)


def unpack_vector(packed: Tensor) -> Tensor:
    """Unpack a vector over channels ``[C]``: a bias, smoothing factor or channel scale.

    Raises:
        ValueError: not a vector, or C is no multiple of 128.
    """
    if packed.dim() != 1:
        _refuse("a vector", packed)
    return unpack_scales(packed[None])[0]


def pack_vector(vector: Tensor) -> Tensor:
    """Pack a vector over channels ``[C]``; undoes `unpack_vector`.

    Raises:
        ValueError: not a vector, or C is no multiple of 128.
    """
    if vector.dim() != 1:
        _refuse("a vector", vector)
    return pack_scales(vector[None])[0]


def awq_qweight_rows(qweight: Tensor) -> Tensor:
    """Unpack an AWQ weight, int32 ``[N/4, K/2]``, into rows of nibbles, int8 ``[N, K/2]``.

    The result is what comfy-kitchen stores: low nibble for even k, values 0..15.

    Raises:
        ValueError: wrong dtype, or K is no multiple of 64.
    """
    quarter, half = _sides(qweight, "an AWQ weight", 1, GROUP // 2)
    if qweight.dtype != torch.int32:
        raise ValueError(f"expected an AWQ weight in int32, not {qweight.dtype}")
    # A 16-bit word j holds k = 8*i + j for i = 0..3, from the low nibble up; 32 inputs are 8 words.
    # Four rows interleave by 16 words. A byte of the result takes nibbles of two words, j and j+1.
    words = qweight.contiguous().view(torch.int16).view(quarter, half // 32, 4, 2, 4, 2)
    even, odd = (part.transpose(1, 2).contiguous().view(torch.uint8) for part in words.unbind(-1))
    low, high = (even & 15) | (odd << 4), (even >> 4) | (odd & 240)  # i = 0, 2 and i = 1, 3
    both = torch.stack([low, high], -1).view(quarter, 4, half // 32, 2, 4, 4)
    return both.transpose(-1, -2).reshape(quarter * 4, half).view(torch.int8)


def unpack_awq_qweight(qweight: Tensor) -> Tensor:
    """Unpack an AWQ weight, int32 ``[N/4, K/2]``, into integers 0..15, int8 ``[N, K]``.

    Raises:
        ValueError: wrong dtype, or K is no multiple of 64.
    """
    return unpack_nibbles(awq_qweight_rows(qweight), signed=False)


def pack_awq_qweight(values: Tensor) -> Tensor:
    """Pack integers 0..15 ``[N, K]`` into an AWQ weight, int32 ``[N/4, K/2]``.

    Raises:
        ValueError: N is no multiple of 4, or K none of 64.
    """
    n, k = _sides(values, "an AWQ weight", 4, GROUP)
    tiles = values.reshape(n // 4, 4, k // 64, 2, 4, 8).permute(0, 2, 1, 3, 5, 4)
    return pack_nibbles(tiles.contiguous()).view(n // 4, k * 2).view(torch.int32)


def _pairs(tensor: Tensor) -> Tensor:
    """View pairs of neighbours, which all layouts keep together, as one element each: faster."""
    wide = {1: torch.int16, 2: torch.int32, 4: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(wide)


def _fours(data: Tensor) -> Tensor:
    """View four neighbouring bytes as one element."""
    return data.contiguous().view(torch.int32)


def _blocks(packed: Tensor) -> Tensor:
    """View a packed factor ``[C, R]`` as ``[C/16, R/16, 256]``."""
    channels, rank = _sides(packed, "a packed low-rank factor", BLOCK, BLOCK)
    return packed.reshape(channels // BLOCK, rank // BLOCK, BLOCK * BLOCK)


def _per_rank(factors: Tensor, ranks: int, down: bool) -> Tensor:
    """Arrange one number per rank as the blocks of a factor lie, ``[1, r/16, 256]``."""
    if factors.shape != (ranks,):
        raise ValueError(f"{ranks} ranks need as many factors, not {list(factors.shape)}")
    if down:  # a rank is a row, (a, b)
        rows = factors.reshape(ranks // BLOCK, 2, 8).transpose(1, 2)  # (b, a)
        spread = rows[:, :, None, :, None].expand(-1, -1, 4, -1, 4)  # stored (b, d, a, (c, e))
    else:  # a rank is a column, (c, d, e)
        columns = factors.reshape(ranks // BLOCK, 1, 2, 4, 2).permute(0, 1, 3, 2, 4)
        spread = columns[:, :, :, None].expand(-1, 8, -1, 2, -1, -1)  # stored (b, d, a, c, e)
    return spread.reshape(1, ranks // BLOCK, BLOCK * BLOCK)


def _range(packed: Tensor, start: int, stop: int) -> None:
    if start % BLOCK or stop % BLOCK or not 0 <= start < stop <= packed.shape[1]:
        raise ValueError(
            f"ranks {start}:{stop} of {packed.shape[1]} are no range in steps of {BLOCK}"
        )


def _weight_sides(weight: Tensor) -> tuple[int, int]:
    n, half = _sides(weight, "an int4 weight", TILE, TILE // 2)
    if weight.dtype != torch.int8:
        raise ValueError(f"expected an int4 weight in int8, not {weight.dtype}")
    return n, half * 2


def _sides(tensor: Tensor, what: str, rows: int, columns: int) -> tuple[int, int]:
    """Return the sides of a matrix that must be multiples of `rows` and `columns`."""
    if tensor.dim() != 2 or 0 in tensor.shape:
        _refuse(what, tensor)
    n, k = tensor.shape
    if n % rows or k % columns:
        raise ValueError(
            f"{what} of shape {[n, k]}: the sides must be multiples of {rows} and {columns}"
        )
    return n, k


def _refuse(what: str, tensor: Tensor) -> NoReturn:
    raise ValueError(f"{what} cannot have the shape {list(tensor.shape)}")
