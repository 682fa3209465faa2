"""Nunchaku's layout of low-rank factors: packed, unpacked, appended, cut and scaled.

As the layouts of weights (`packing.py`), it is one reshape, permute and reshape: nothing is
computed, so all but scaling is bit-exact, keeps the dtype, and runs on any device. N is the number
of outputs of a layer, K of inputs, R the rank of its low-rank branch, C either N or K.

Source: ``nunchaku/lora/flux/packer.py`` of Nunchaku 1.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tiles import pairs, sides

BLOCK = 16  # channels and ranks in a block of a low-rank factor


def pack_lowrank(weight: Tensor, *, down: bool) -> Tensor:
    """Pack a low-rank factor: down ``[R, K]`` to ``[K, R]``, up ``[N, R]`` to ``[N, R]``.

    The result is a sequence of 16x16 blocks, ordered by channel block, then rank block. So its
    columns are *not* ranks: use the functions below to append, cut and scale.

    Raises:
        ValueError: not a matrix, or a side is no multiple of 16.
    """
    rows, columns = sides(weight, "a low-rank factor", BLOCK, BLOCK)
    # Within a block: row = 8*a + b, column = 8*c + 2*d + e, stored in the order (b, d, a, c, e).
    tiles = pairs(weight).reshape(rows // BLOCK, 2, 8, columns // BLOCK, 2, 4)
    order = (3, 0, 2, 5, 1, 4) if down else (0, 3, 2, 5, 1, 4)
    packed = tiles.permute(order).reshape(-1).view(weight.dtype)
    return packed.view(columns, rows) if down else packed.view(rows, columns)


def unpack_lowrank(packed: Tensor, *, down: bool) -> Tensor:
    """Unpack a low-rank factor: ``[K, R]`` to down ``[R, K]``, or ``[N, R]`` to up ``[N, R]``.

    Raises:
        ValueError: not a matrix, or a side is no multiple of 16.
    """
    channels, rank = sides(packed, "a packed low-rank factor", BLOCK, BLOCK)
    tiles = pairs(packed).reshape(channels // BLOCK, rank // BLOCK, 8, 4, 2, 2)
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


def _blocks(packed: Tensor) -> Tensor:
    """View a packed factor ``[C, R]`` as ``[C/16, R/16, 256]``."""
    channels, rank = sides(packed, "a packed low-rank factor", BLOCK, BLOCK)
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
